"""Which reset a bucket's stored counters are from: a copy of Redis from before it brings nothing back."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("gatehouse", "0005_call_windows")]

    operations = [
        ops.AddField(model_name="CallerSketch", name="reset", field=fields.BigIntField(db_default=0)),
    ]
