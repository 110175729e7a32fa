-- Delete one batch of expired sessions, passing over rows that a login holds.
--   $1 rows a batch
-- The time is the statement's: with clock_timestamp(), which is another for each row, no index finds the rows, and the
-- last batch would look at every live session.
-- The lock is taken before the row is judged again, so a session that a login has just renewed stays.
DELETE FROM sessions WHERE user_id IN (
  SELECT user_id FROM sessions WHERE expires_at <= statement_timestamp()
   ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)
RETURNING user_id
