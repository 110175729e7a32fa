"""What models cannot say: the sequence of session versions, and the index that finds a bucket's totals."""

from tortoise import migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("gatehouse", "0001_initial")]

    operations = [
        ops.RunSQL("CREATE SEQUENCE session_versions", "DROP SEQUENCE session_versions"),
        # 64 is models.keys.BUCKETS.
        ops.RunSQL(
            "CREATE INDEX idx_call_totals_bucket ON call_totals ((user_id % 64), user_id)",
            "DROP INDEX idx_call_totals_bucket",
        ),
    ]
