"""The tables, as Tortoise models; `models/migrations/` makes them, `models/scripts/*.sql` are the other queries."""

from tortoise import fields
from tortoise.indexes import Index
from tortoise.models import Model


class User(Model):
    """Who may log in.

    `username_key` is the name as it is compared: NFKC and case-folded in Python, because PostgreSQL's `lower()` folds
    only ASCII under the C locale. `known_addresses` has the digests of the last few addresses at which the user logged
    in, 8 bytes each, the newest first.
    """

    id = fields.BigIntField(primary_key=True)
    username = fields.CharField(max_length=64)
    username_key = fields.CharField(max_length=256, unique=True)
    password_hash = fields.CharField(max_length=512)
    created_at = fields.DatetimeField(auto_now_add=True)
    disabled_at = fields.DatetimeField(null=True)
    known_addresses = fields.BinaryField(null=True)

    class Meta:
        table = "users"


class Session(Model):
    """The one session of a user: the key is the user, so there cannot be two.

    `version` comes from the sequence `session_versions`, drawn under the row's lock, and so rises in commit order.
    """

    user: fields.OneToOneRelation[User] = fields.OneToOneField(
        "gatehouse.User", primary_key=True, on_delete=fields.CASCADE, related_name="session"
    )
    version = fields.BigIntField()
    token_digest = fields.BinaryField()
    created_at = fields.DatetimeField()
    expires_at = fields.DatetimeField()
    revoked_at = fields.DatetimeField(null=True)
    changed_at = fields.DatetimeField()

    class Meta:
        table = "sessions"
        indexes = (Index(fields=("changed_at", "user_id")), Index(fields=("expires_at",)))


class CallTotal(Model):
    """The snapshot of a user's number of admitted calls."""

    user_id = fields.BigIntField(primary_key=True, generated=False)
    calls = fields.BigIntField()
    updated_at = fields.DatetimeField()

    class Meta:
        table = "call_totals"


class CallerSketch(Model):
    """The snapshot of a bucket's HyperLogLog of callers, as Redis's own bytes.

    `snapshot` is the number of the bucket's last snapshot, which Redis keeps in `ready`; `reset` is that of its last
    reset.
    """

    bucket = fields.IntField(primary_key=True, generated=False)
    sketch = fields.BinaryField()
    snapshot = fields.BigIntField(db_default=0)
    reset = fields.BigIntField(db_default=0)
    updated_at = fields.DatetimeField()

    class Meta:
        table = "caller_sketches"
