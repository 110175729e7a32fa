-- The seconds since the last snapshot that stored anything; NULL when there was none.
SELECT extract(epoch FROM clock_timestamp() - max(updated_at))::float8 AS age_s FROM caller_sketches
