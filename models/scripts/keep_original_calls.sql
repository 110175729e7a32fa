-- Store call totals of the original for those staged users who are ours now; never less than is stored.
--   $1 user ids (bigint[], distinct), $2 calls (bigint[])
-- Returns how many of these users are ours.
WITH ours AS (
    SELECT given.* FROM unnest($1::bigint[], $2::bigint[]) AS given(user_id, calls)
      JOIN staged_users AS s ON s.id = given.user_id AND s.verdict IN ('imported', 'there')
), kept AS (
    INSERT INTO call_totals AS t (user_id, calls, updated_at) SELECT user_id, calls, now() FROM ours ORDER BY user_id
    ON CONFLICT (user_id) DO UPDATE SET calls = excluded.calls, updated_at = excluded.updated_at
     WHERE t.calls < excluded.calls
)
SELECT count(*) FROM ours
