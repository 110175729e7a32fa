-- Keep a user from logging in.
--   $1 user id (bigint)
-- Returns a row when the user could log in until now. It waits for logins that are starting a session
-- (upsert_session.sql holds the row), so that a session ended after it is the user's last.
UPDATE users SET disabled_at = clock_timestamp() WHERE id = $1 AND disabled_at IS NULL RETURNING id
