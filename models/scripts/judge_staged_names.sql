-- Of staged users whose names are one to us let the first stay that is not disabled, or else the first.
WITH judged AS (
    SELECT line, first_value(line) OVER names AS first_line, first_value(id) OVER names AS first_id
      FROM staged_users WHERE verdict IS NULL
    WINDOW names AS (PARTITION BY username_key ORDER BY disabled_at IS NOT NULL, id, line)
)
UPDATE staged_users AS s SET verdict = 'name_twice', other = judged.first_id
  FROM judged WHERE s.line = judged.line AND judged.line <> judged.first_line
