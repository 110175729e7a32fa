-- One page of the unexpired sessions that changed after a point, oldest change first.
--   $1 changed_at and $2 user id of the last row of the page before, $3 buckets (int[]), $4 rows a page
-- 64 is models.keys.BUCKETS.
SELECT user_id, version, token_digest, (extract(epoch FROM expires_at) * 1000)::bigint AS expires_ms,
       revoked_at IS NOT NULL AS revoked, false AS expired, changed_at
  FROM sessions
 WHERE (changed_at, user_id) > ($1, $2) AND expires_at > clock_timestamp() AND user_id % 64 = ANY ($3::int[])
 ORDER BY changed_at, user_id LIMIT $4
