-- End one batch of live sessions, by user id.
--   $1 last user id of the batch before (bigint), $2 rows a batch
-- Returns as revoke_session.sql. Locked in the order of ids, so that two of these cannot wait for each other.
UPDATE sessions SET version = nextval('session_versions'), revoked_at = clock_timestamp(), changed_at = clock_timestamp()
 WHERE user_id IN (
   SELECT user_id FROM sessions
    WHERE user_id > $1 AND revoked_at IS NULL AND expires_at > clock_timestamp()
    ORDER BY user_id LIMIT $2 FOR UPDATE)
RETURNING user_id, version, (extract(epoch FROM expires_at) * 1000)::bigint AS expires_ms
