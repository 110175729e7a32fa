-- A bucket's stored HyperLogLog and the number of the snapshot that it is of.
--   $1 bucket (int)
SELECT sketch, snapshot FROM caller_sketches WHERE bucket = $1
