-- The names of some users.
--   $1 user ids (bigint[])
SELECT id, username FROM users WHERE id = ANY ($1::bigint[])
