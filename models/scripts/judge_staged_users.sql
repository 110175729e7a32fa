-- Judge staged users by each other's ids and by who is here.
--   $1 whether they keep their ids (boolean)
-- With an id of ours given to them, a user who is here under the name is the same one if the account is as old.
WITH judged AS (
    SELECT s.line, CASE
               WHEN $1 AND s.line > s.first_line THEN 'id_twice'
               WHEN $1 AND by_id.username_key = s.username_key THEN 'there'
               WHEN $1 AND by_id.id IS NOT NULL THEN 'id_taken'
               WHEN NOT $1 AND by_key.created_at = coalesce(s.created_at, by_key.created_at) THEN 'there'
               WHEN by_key.id IS NOT NULL THEN 'name_taken'
           END AS verdict, CASE WHEN $1 AND s.line > s.first_line THEN s.first_line ELSE by_key.id END AS other
      FROM (SELECT line, id, username_key, created_at, min(line) OVER (PARTITION BY id) AS first_line
              FROM staged_users WHERE verdict IS NULL) AS s
      LEFT JOIN users AS by_id ON by_id.id = s.id
      LEFT JOIN users AS by_key ON by_key.username_key = s.username_key
)
UPDATE staged_users AS s SET verdict = judged.verdict, other = judged.other
  FROM judged WHERE s.line = judged.line AND judged.verdict IS NOT NULL
