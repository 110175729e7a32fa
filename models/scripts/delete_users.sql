-- Delete accounts; their session rows go with them.
--   $1 user ids (bigint[])
DELETE FROM users WHERE id = ANY ($1::bigint[]) RETURNING id
