-- One page of a bucket's stored calls of an hour or a day, by user id.
--   $1 when it starts (timestamptz), $2 its hours (int), $3 bucket (int), $4 last user id of the page before (bigint),
--   $5 rows a page
-- 64 is models.keys.BUCKETS, spelt out so that the index serves it.
SELECT user_id, calls FROM call_windows
 WHERE starts_at = $1 AND hours = $2 AND user_id % 64 = $3 AND user_id > $4 ORDER BY user_id LIMIT $5
