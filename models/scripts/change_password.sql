-- Give a user another password.
--   $1 user id (bigint), $2 its hash (text)
-- Returns a row when there is such a user. It waits for logins as disable_user.sql does.
UPDATE users SET password_hash = $2 WHERE id = $1 RETURNING id
