"""A bucket's sessions at hand: a server of Redis that is new gets those of its buckets."""

from tortoise import migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("gatehouse", "0006_reset_number")]

    operations = [
        # 64 is models.keys.BUCKETS.
        ops.RunSQL(
            "CREATE INDEX idx_sessions_bucket ON sessions ((user_id % 64), user_id)",
            "DROP INDEX idx_sessions_bucket",
        ),
    ]
