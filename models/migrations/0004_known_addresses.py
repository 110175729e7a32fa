"""Where a user has logged in before, so that who guesses from elsewhere does not keep the user out."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("gatehouse", "0003_snapshot_number")]

    operations = [
        ops.AddField(model_name="User", name="known_addresses", field=fields.BinaryField(null=True)),
    ]
