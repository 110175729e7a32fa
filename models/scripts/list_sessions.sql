-- One page of the live sessions, by user id.
--   $1 last user id of the page before (bigint), $2 rows a page
SELECT s.user_id, u.username, s.version, s.created_at, s.expires_at
  FROM sessions s JOIN users u ON u.id = s.user_id
 WHERE s.user_id > $1 AND s.revoked_at IS NULL AND s.expires_at > clock_timestamp()
 ORDER BY s.user_id LIMIT $2
