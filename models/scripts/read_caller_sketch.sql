-- A bucket's stored HyperLogLog.
--   $1 bucket (int)
SELECT sketch FROM caller_sketches WHERE bucket = $1
