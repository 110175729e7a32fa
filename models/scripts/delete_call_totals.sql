-- Forget stored totals of a bucket.
--   $1 bucket (int), $2 user ids (bigint[]), NULL for all
-- 64 is models.keys.BUCKETS, spelt out so that the index serves it.
DELETE FROM call_totals WHERE user_id % 64 = $1 AND ($2::bigint[] IS NULL OR user_id = ANY ($2))
