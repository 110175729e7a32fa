-- Forget stored calls of hours and days of a bucket.
--   $1 bucket (int), $2 user ids (bigint[]), NULL for all
DELETE FROM call_windows WHERE user_id % 64 = $1 AND ($2::bigint[] IS NULL OR user_id = ANY ($2))
