-- Store a chunk of the users' totals; absolute values and never a smaller one, so that running it twice is harmless.
--   $1 user ids (bigint[], ascending, distinct), $2 calls (bigint[])
INSERT INTO call_totals AS t (user_id, calls, updated_at)
SELECT user_id, calls, now() FROM unnest($1::bigint[], $2::bigint[]) AS given(user_id, calls)
ON CONFLICT (user_id) DO UPDATE SET calls = greatest(t.calls, excluded.calls), updated_at = excluded.updated_at
 WHERE t.calls < excluded.calls
