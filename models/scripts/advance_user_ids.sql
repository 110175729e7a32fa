-- Let the next user who signs up get an id beyond this one; under the lock of lock_users.sql, as somebody could draw
-- an id meanwhile that would then be given twice.
--   $1 id (bigint)
SELECT setval('users_id_seq', greatest($1, last_value)) FROM users_id_seq WHERE last_value < $1 OR NOT is_called
