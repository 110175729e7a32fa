-- The next page of another database's users, each column as text; those that it need not have are null without it.
--   $1 the last id of the page before (bigint), $2 how many at most
SELECT u.id, u.username, u.password, j ->> 'created_at' AS created_at, j ->> 'deleted_at' AS deleted_at
  FROM (SELECT id::bigint AS id, username::text AS username, password::text AS password, to_jsonb(users) - 'password' AS j
          FROM users WHERE id > $1::bigint ORDER BY id LIMIT $2) AS u
