"""Which snapshot a bucket's stored counters are of: an older copy of Redis is known by its lower number."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("gatehouse", "0002_session_versions")]

    operations = [
        ops.AddField(model_name="CallerSketch", name="snapshot", field=fields.BigIntField(db_default=0)),
    ]
