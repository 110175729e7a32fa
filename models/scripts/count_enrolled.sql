-- How many accounts have a folded name that begins with a text.
--   $1 the text
SELECT count(*) AS users FROM users WHERE starts_with(username_key, $1)
