-- End a user's session.
--   $1 user id (bigint); $2 version (bigint) and $3 token digest (bytea) of the session to end, NULL for whichever there is
-- Returns the new version and expires_ms; no row when that session is not the live one.
-- The new version fences off every reader that still holds the live row.
UPDATE sessions SET version = nextval('session_versions'), revoked_at = clock_timestamp(), changed_at = clock_timestamp()
 WHERE user_id = $1 AND ($2::bigint IS NULL OR (version = $2 AND token_digest = $3))
   AND revoked_at IS NULL AND expires_at > clock_timestamp()
RETURNING version, (extract(epoch FROM expires_at) * 1000)::bigint AS expires_ms
