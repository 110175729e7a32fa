-- One page of accounts, by user id.
--   $1 last user id of the page before (bigint), $2 a part of the folded name, '' for all (text), $3 rows a page
SELECT u.id, u.username, u.created_at, u.disabled_at,
       EXISTS (SELECT FROM sessions s WHERE s.user_id = u.id AND s.revoked_at IS NULL
                  AND s.expires_at > clock_timestamp()) AS has_session
  FROM users u
 WHERE u.id > $1 AND ($2 = '' OR strpos(u.username_key, $2) > 0)
 ORDER BY u.id LIMIT $3
