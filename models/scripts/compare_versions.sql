-- The last session version that was drawn, and the highest that a row has.
SELECT coalesce(pg_sequence_last_value('session_versions'), 0) AS drawn,
       coalesce((SELECT max(version) FROM sessions), 0) AS highest
