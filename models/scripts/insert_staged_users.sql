-- Make users of the staged ones that nothing is against; who came before them meanwhile is left without a verdict.
--   $1 after this line, $2 up to this one (bigint), $3 whether they keep their ids (boolean)
WITH added AS (
    INSERT INTO users (id, username, username_key, password_hash, created_at, disabled_at)
    SELECT CASE WHEN $3 THEN id ELSE nextval('users_id_seq') END, username, username_key, password_hash,
           coalesce(created_at, now()), disabled_at
      FROM staged_users WHERE verdict IS NULL AND line > $1 AND line <= $2 ORDER BY line
    ON CONFLICT DO NOTHING RETURNING username_key
)
UPDATE staged_users AS s SET verdict = 'imported'
  FROM added WHERE s.verdict IS NULL AND s.line > $1 AND s.line <= $2 AND s.username_key = added.username_key
