-- Hold one bucket's counters until the end of the transaction: snapshot and restore of a bucket never overlap.
--   $1 class of the lock (int), $2 bucket (int)
-- Returns whether the lock was free.
SELECT pg_try_advisory_xact_lock($1, $2) AS locked
