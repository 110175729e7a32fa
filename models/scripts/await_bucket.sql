-- Hold one bucket's counters as lock_bucket.sql does, once whoever holds them has let go.
--   $1 class of the lock (int), $2 bucket (int)
-- Returns nothing.
SELECT pg_advisory_xact_lock($1, $2)
