-- Some of the accounts whose folded name begins with a text.
--   $1 the text, $2 rows at most
SELECT id FROM users WHERE starts_with(username_key, $1) LIMIT $2
