-- All stored totals, by user id.
-- A user who was deleted has no name any more.
SELECT t.user_id, u.username, t.calls FROM call_totals t LEFT JOIN users u ON u.id = t.user_id ORDER BY t.user_id
