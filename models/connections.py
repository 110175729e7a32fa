"""Everything opened once and shared: by the API, the worker, the command line and the tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from models.accounts import Accounts
from models.admin import Admin
from models.database import Database
from models.diagnosis import Diagnosis
from models.exports import Exports
from models.heartbeat import Heartbeat
from models.imports import Imports
from models.operations import Operations
from models.original_counts import OriginalCounts
from models.overview import Overviews
from models.passwords import Passwords
from models.register import Register
from models.rehearsals import Rehearsals
from models.resets import Resets
from models.roster import Roster
from models.sessions import Sessions
from models.settings import Settings
from models.snapshots import Snapshots
from models.store import Store
from models.throttle import LoginLimits, LoginThrottle
from models.tokens import TokenSigner
from models.usage import Usage


@dataclass(frozen=True, slots=True)
class Stores:
    """The two stores and the domain on top of them."""

    settings: Settings
    database: Database
    store: Store
    sessions: Sessions
    usage: Usage
    snapshots: Snapshots
    accounts: Accounts
    imports: Imports
    heartbeat: Heartbeat
    operations: Operations
    overviews: Overviews
    admin: Admin
    diagnosis: Diagnosis
    roster: Roster
    register: Register
    exports: Exports
    resets: Resets
    rehearsals: Rehearsals

    async def away(self) -> list[str]:
        """The stores that do not answer, by name."""
        names = {"PostgreSQL": self.database.ping(), "Redis": self.store.ping()}
        answers = await asyncio.gather(*names.values(), return_exceptions=True)
        return [name for name, answer in zip(names, answers, strict=True) if isinstance(answer, Exception)]


@asynccontextmanager
async def open_stores(settings: Settings) -> AsyncIterator[Stores]:
    """Open both stores and close them at the end. Neither needs to be there yet: what needs it says so when used."""
    passwords = Passwords()
    database = await Database.open(settings.database_url)
    store = Store(settings.redis_url)
    stores = _assembled(settings, passwords, database, store)
    try:
        await stores.usage.begin()
        yield stores
    finally:
        await stores.overviews.close()
        await stores.heartbeat.close()
        await stores.operations.close()
        await stores.usage.close()
        await store.close()
        await database.close()
        passwords.close()


def _assembled(settings: Settings, passwords: Passwords, database: Database, store: Store) -> Stores:
    sessions = Sessions(database, store, TokenSigner(settings.secret_keys), settings.session_ttl_s)
    usage = Usage(store, sessions, settings.rate_limits)
    heartbeat = Heartbeat(store, settings.sync_interval_s)
    operations = Operations(store, database, usage, passwords)
    throttle = LoginThrottle(store, _login_limits(settings))
    accounts = Accounts(settings, database, sessions, passwords, throttle)
    snapshots = Snapshots(database, store.counters)
    resets = Resets(database, store.counters, snapshots)
    return Stores(
        settings=settings,
        database=database,
        store=store,
        sessions=sessions,
        usage=usage,
        snapshots=snapshots,
        accounts=accounts,
        imports=Imports(database, passwords, OriginalCounts(snapshots)),
        heartbeat=heartbeat,
        operations=operations,
        overviews=Overviews(settings, database, store, accounts, operations, heartbeat),
        admin=Admin(settings.admin_key, throttle),
        diagnosis=Diagnosis(settings, database, store, snapshots, heartbeat, usage.policies),
        roster=Roster(database, sessions, passwords),
        register=Register(database, store, sessions),
        exports=Exports(database, store.counters, snapshots),
        resets=resets,
        rehearsals=Rehearsals(database, sessions, passwords, resets),
    )


def _login_limits(settings: Settings) -> LoginLimits:
    return LoginLimits(
        user=settings.login_limits_user,
        user_address=settings.login_limits_user_address,
        address=settings.login_limits_address,
        all=settings.login_limits_all,
    )
