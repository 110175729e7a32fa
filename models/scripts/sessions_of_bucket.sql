-- One page of a bucket's unexpired sessions, by user id.
--   $1 bucket (bigint), $2 last user id of the page before (bigint), $3 rows a page
-- 64 is models.keys.BUCKETS, spelt out so that the index serves it. Compared as rows, so that no other index can: with
-- `user_id % 64 = $1 AND user_id > $2` the planner came to prefer the primary key, and passed over 63 buckets.
SELECT user_id, version, token_digest, (extract(epoch FROM expires_at) * 1000)::bigint AS expires_ms,
       revoked_at IS NOT NULL AS revoked, false AS expired
  FROM sessions
 WHERE (user_id % 64, user_id) > ($1::bigint, $2) AND user_id % 64 <= $1::bigint AND expires_at > clock_timestamp()
 ORDER BY user_id % 64, user_id LIMIT $3
