-- What an examination asks of the server first.
SELECT current_setting('server_version_num')::int AS version_number, current_setting('server_version') AS version,
       extract(epoch FROM clock_timestamp())::float8 AS now_s,
       current_setting('transaction_read_only') = 'on' AS read_only,
       to_regclass('tortoise_migrations') IS NOT NULL AS migrated
