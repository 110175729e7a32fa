from tortoise import fields, migrations
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    initial = True

    operations = [
        ops.CreateModel(
            name="CallTotal",
            fields=[
                ("user_id", fields.BigIntField(primary_key=True, generated=False, unique=True, db_index=True)),
                ("calls", fields.BigIntField()),
                ("updated_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "call_totals",
                "app": "gatehouse",
                "pk_attr": "user_id",
                "table_description": "The snapshot of a user's number of admitted calls.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="CallerSketch",
            fields=[
                ("bucket", fields.IntField(primary_key=True, generated=False, unique=True, db_index=True)),
                ("sketch", fields.BinaryField()),
                ("updated_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "caller_sketches",
                "app": "gatehouse",
                "pk_attr": "bucket",
                "table_description": "The snapshot of a bucket's HyperLogLog of callers, as Redis's own bytes.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="User",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ("username", fields.CharField(max_length=64)),
                ("username_key", fields.CharField(unique=True, max_length=256)),
                ("password_hash", fields.CharField(max_length=512)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("disabled_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={"table": "users", "app": "gatehouse", "pk_attr": "id", "table_description": "Who may log in."},
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Session",
            fields=[
                (
                    "user",
                    fields.OneToOneField(
                        "gatehouse.User",
                        source_field="user_id",
                        primary_key=True,
                        db_index=True,
                        db_constraint=True,
                        to_field="id",
                        related_name="session",
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("version", fields.BigIntField()),
                ("token_digest", fields.BinaryField()),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("expires_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("revoked_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("changed_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "sessions",
                "app": "gatehouse",
                "indexes": [Index(fields=["changed_at", "user_id"]), Index(fields=["expires_at"])],
                "pk_attr": "user_id",
                "table_description": "The one session of a user: the key is the user, so there cannot be two.",
            },
            bases=["Model"],
        ),
    ]
