-- Give a reset of a bucket a number, as a snapshot has one: what Redis holds under a lower one is from before it.
--   $1 bucket (int), $2 whether all of the bucket's users are reset, and so its HyperLogLog (boolean)
-- Returns the number.
INSERT INTO caller_sketches AS s (bucket, sketch, snapshot, reset, updated_at)
VALUES ($1, ''::bytea, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, now())
ON CONFLICT (bucket) DO UPDATE
   SET sketch = CASE WHEN $2 THEN ''::bytea ELSE s.sketch END, snapshot = greatest(s.snapshot + 1, excluded.snapshot),
       reset = greatest(s.snapshot + 1, excluded.snapshot), updated_at = excluded.updated_at
RETURNING snapshot
