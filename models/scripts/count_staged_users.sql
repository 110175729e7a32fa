-- How many staged users have which verdict, and how many of them are disabled.
SELECT verdict, count(*) AS users, count(disabled_at) AS disabled FROM staged_users GROUP BY verdict
