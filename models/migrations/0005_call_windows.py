"""The snapshot of the calls of each hour and day. By hand: models here have no keys of several columns."""

from tortoise import migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("gatehouse", "0004_known_addresses")]

    operations = [
        ops.RunSQL(
            "CREATE TABLE call_windows (starts_at timestamptz NOT NULL, hours smallint NOT NULL,"
            " user_id bigint NOT NULL, calls bigint NOT NULL)",
            "DROP TABLE call_windows",
        ),
        # 64 is models.keys.BUCKETS.
        ops.RunSQL(
            "CREATE UNIQUE INDEX idx_call_windows_bucket ON call_windows (starts_at, hours, (user_id % 64), user_id)",
            "DROP INDEX idx_call_windows_bucket",
        ),
    ]
