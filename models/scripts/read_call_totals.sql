-- One page of a bucket's stored totals, by user id.
--   $1 bucket (bigint), $2 last user id of the page before (bigint), $3 rows a page
-- 64 is models.keys.BUCKETS, spelt out so that the index on (user_id % 64, user_id) serves it; as in
-- sessions_of_bucket.sql no other can.
SELECT user_id, calls FROM call_totals
 WHERE (user_id % 64, user_id) > ($1::bigint, $2) AND user_id % 64 <= $1::bigint
 ORDER BY user_id % 64, user_id LIMIT $3
