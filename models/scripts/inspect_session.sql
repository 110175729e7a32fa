-- A user's session row as an operator sees it, ended or not.
--   $1 user id (bigint)
SELECT version, token_digest, created_at, expires_at, revoked_at, expires_at <= clock_timestamp() AS expired,
       (extract(epoch FROM expires_at) * 1000)::bigint AS expires_ms
  FROM sessions WHERE user_id = $1
