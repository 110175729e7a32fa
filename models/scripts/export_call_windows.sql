-- All stored calls of an hour or a day, by user id.
--   $1 when it starts (timestamptz), $2 its hours (int)
SELECT w.user_id, u.username, w.calls FROM call_windows w LEFT JOIN users u ON u.id = w.user_id
 WHERE w.starts_at = $1 AND w.hours = $2 ORDER BY w.user_id
