-- Start a user's session, ending the one before it.
--   $1 user id (bigint), $2 token digest (bytea), $3 time to live (seconds), $4 hash of the password that was right
--   (text), NULL when none was asked for
-- Returns version and expires_ms; no row when the user is gone, disabled or has another password by now.
-- The user's row is held against disable_user.sql and change_password.sql: who ends the session after these ends this one.
-- The version is drawn again inside DO UPDATE, that is under the row's lock: versions rise in commit order. Drawn only in
-- the SELECT, two logins could take 1 and 2 and commit as 2 and 1.
INSERT INTO sessions AS s (user_id, version, token_digest, created_at, expires_at, changed_at)
SELECT id, nextval('session_versions'), $2, clock_timestamp(),
       date_trunc('milliseconds', clock_timestamp()) + make_interval(secs => $3), clock_timestamp()
  FROM users WHERE id = $1 AND disabled_at IS NULL AND ($4::text IS NULL OR password_hash = $4) FOR SHARE
ON CONFLICT (user_id) DO UPDATE
   SET version = nextval('session_versions'), token_digest = $2, created_at = clock_timestamp(),
       expires_at = date_trunc('milliseconds', clock_timestamp()) + make_interval(secs => $3),
       revoked_at = NULL, changed_at = clock_timestamp()
RETURNING version, (extract(epoch FROM expires_at) * 1000)::bigint AS expires_ms
