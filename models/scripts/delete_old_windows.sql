-- Delete one batch of hours and days that are forgotten in Redis too: as long after their end as they lasted.
--   $1 rows a batch
-- The time is the statement's, so that the index finds the rows: see delete_expired_sessions.sql.
DELETE FROM call_windows WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM call_windows
   WHERE (hours = 1 AND starts_at <= statement_timestamp() - interval '2 hours')
      OR (hours = 24 AND starts_at <= statement_timestamp() - interval '2 days') LIMIT $1))
RETURNING user_id
