-- Where the rows of an import wait for their verdict, until the transaction ends; null: nothing is against it yet.
-- `other` is the line or the user that a verdict speaks of.
CREATE TEMPORARY TABLE staged_users (
    line bigint PRIMARY KEY, id bigint, username text, username_key text, password_hash text,
    created_at timestamptz, disabled_at timestamptz, shown text, verdict text, other bigint
) ON COMMIT DROP
