-- How far the lines of staged users go, and the ids of those that nothing is against.
SELECT coalesce(max(line), 0) AS last_line, coalesce(max(id) FILTER (WHERE verdict IS NULL), 0) AS highest_id
  FROM staged_users
