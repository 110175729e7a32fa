-- The number of live sessions, counted up to a bound, and about how many rows there are at all.
--   $1 count so many at most (bigint)
SELECT (SELECT count(*) FROM (SELECT FROM sessions WHERE revoked_at IS NULL AND expires_at > now() LIMIT $1) AS live)
         AS counted,
       (SELECT reltuples::bigint FROM pg_class WHERE oid = 'sessions'::regclass) AS about
