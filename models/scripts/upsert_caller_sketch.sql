-- Store a bucket's HyperLogLog, which completes a snapshot of the bucket.
--   $1 bucket (int), $2 sketch (bytea)
-- Returns the snapshot's number: higher than that of every snapshot before, also of one that this server lost.
INSERT INTO caller_sketches AS s (bucket, sketch, snapshot, updated_at)
VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, now())
ON CONFLICT (bucket) DO UPDATE
   SET sketch = excluded.sketch, snapshot = greatest(s.snapshot + 1, excluded.snapshot), updated_at = excluded.updated_at
RETURNING snapshot
