-- The next page of another database's users, each column as text; those that it need not have are null without it.
--   $1 the last id of the page before (bigint), $2 how many at most, $3 how many characters of a column
SELECT u.id, u.username, u.password, left(j ->> 'created_at', $3) AS created_at,
       left(j ->> 'deleted_at', $3) AS deleted_at
  FROM (SELECT id::bigint AS id, left(username::text, $3) AS username, left(password::text, $3) AS password,
               to_jsonb(users) - 'password' AS j
          FROM users WHERE id > $1::bigint ORDER BY id LIMIT $2) AS u
