-- How the tables would be spread over the nodes of Citus, by user: see docs/postgresql.md for what else it takes.
-- A unique index has to contain the column that a table is distributed by. That of users (id) and of its names
-- (username_key) cannot be in one table, so the names get their own, in which a name leads to its user.

ALTER TABLE sessions DROP CONSTRAINT sessions_user_id_fkey;
ALTER TABLE users DROP CONSTRAINT users_username_key_key;

CREATE TABLE user_names (username_key varchar(256) PRIMARY KEY, user_id bigint NOT NULL);
INSERT INTO user_names SELECT username_key, id FROM users;
SELECT create_distributed_table('user_names', 'username_key', colocate_with => 'none');

-- A user's rows are on one node.
SELECT create_distributed_table('users', 'id');
SELECT create_distributed_table('sessions', 'user_id', colocate_with => 'users');
SELECT create_distributed_table('call_totals', 'user_id', colocate_with => 'users');
SELECT create_distributed_table('call_windows', 'user_id', colocate_with => 'users');
ALTER TABLE sessions ADD CONSTRAINT sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE;

-- 64 rows, of a bucket each.
SELECT create_distributed_table('caller_sketches', 'bucket', colocate_with => 'none');
