-- What this role may not do and has to.
--   $1 tables (text[])
-- Returns a row for each table and privilege, and for each sequence that may not be drawn from.
SELECT name, privilege FROM unnest($1::text[]) AS name, unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS privilege
 WHERE NOT has_table_privilege(name, privilege)
UNION ALL
SELECT name, 'USAGE' FROM unnest(ARRAY['session_versions', pg_get_serial_sequence('users', 'id')]) AS name
 WHERE NOT has_sequence_privilege(name, 'USAGE')
