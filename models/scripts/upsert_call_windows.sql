-- Store a chunk of the users' calls of an hour or a day; absolute values and never a smaller one.
--   $1 when it starts (timestamptz), $2 its hours (int), $3 user ids (bigint[], distinct), $4 calls (bigint[])
INSERT INTO call_windows AS w (starts_at, hours, user_id, calls)
SELECT $1, $2, user_id, calls FROM unnest($3::bigint[], $4::bigint[]) AS given(user_id, calls)
ON CONFLICT (starts_at, hours, (user_id % 64), user_id) DO UPDATE SET calls = greatest(w.calls, excluded.calls)
 WHERE w.calls < excluded.calls
