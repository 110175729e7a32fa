-- The migrations that were applied.
SELECT name FROM tortoise_migrations WHERE app = 'gatehouse'
