-- Create accounts that share one password, passing over names that are taken.
--   $1 names, which are their own folded form (text[]), $2 hash of the password (text)
-- Returns the ids of those that were created.
INSERT INTO users (username, username_key, password_hash, created_at)
SELECT name, name, $2, clock_timestamp() FROM unnest($1::text[]) AS given(name)
ON CONFLICT (username_key) DO NOTHING RETURNING id
