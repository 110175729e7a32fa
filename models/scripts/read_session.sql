-- A user's session row, for a check that Redis could not answer.
--   $1 user id (bigint)
SELECT user_id, version, token_digest, (extract(epoch FROM expires_at) * 1000)::bigint AS expires_ms,
       revoked_at IS NOT NULL AS revoked, expires_at <= clock_timestamp() AS expired
  FROM sessions WHERE user_id = $1
