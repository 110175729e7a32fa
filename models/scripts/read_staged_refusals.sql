-- The next page of staged users that are refused.
--   $1 the last line of the page before (bigint), $2 how many at most
SELECT line, id, shown, verdict, other FROM staged_users
 WHERE line > $1 AND verdict NOT IN ('imported', 'there') ORDER BY line LIMIT $2
