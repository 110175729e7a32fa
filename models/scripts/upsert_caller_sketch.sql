-- Store a bucket's HyperLogLog.
--   $1 bucket (int), $2 sketch (bytea)
INSERT INTO caller_sketches (bucket, sketch, updated_at) VALUES ($1, $2, now())
ON CONFLICT (bucket) DO UPDATE SET sketch = excluded.sketch, updated_at = excluded.updated_at
