-- What a user may know about their own session.
--   $1 user id (bigint), $2 version (bigint), $3 token digest (bytea)
SELECT s.user_id, u.username, s.created_at, s.expires_at
  FROM sessions s JOIN users u ON u.id = s.user_id
 WHERE s.user_id = $1 AND s.version = $2 AND s.token_digest = $3 AND s.revoked_at IS NULL AND s.expires_at > clock_timestamp()
