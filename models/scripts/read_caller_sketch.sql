-- A bucket's stored HyperLogLog, the number of the snapshot that it is of, and that of the bucket's last reset.
--   $1 bucket (int)
SELECT sketch, snapshot, reset FROM caller_sketches WHERE bucket = $1
