"""Policies: named limits. A route, or the proxy that asks for it, says by which of them a call is judged."""

import re
from collections.abc import Sequence

import msgspec

from models.errors import UnknownPolicy
from models.limits import RateLimit, parse_limits

DEFAULT = "default"
MAX_POLICIES = 16
MAX_APPLIED = 4
"""Policies that one call may be judged by: each has a log of its own to read and to write."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_SHADOW = "shadow:"
_MAX_SPELLINGS = 256


class Policy(msgspec.Struct, frozen=True):
    """Limits under one name, with a log of admitted calls of their own.

    Args:
        shadow: what these limits would refuse is counted, and not refused.
    """

    name: str
    limits: tuple[RateLimit, ...]
    shadow: bool = False


class Applied(msgspec.Struct, frozen=True, eq=False):
    """The policies that judge a call: all enforced ones must allow it, or none of them changes.

    Args:
        policies: in the order of `RATE_LIMITS`, but the enforced ones first.
        limits: of the enforced ones, in their order: what clients are told.
    """

    policies: tuple[Policy, ...]
    limits: tuple[RateLimit, ...]

    @property
    def shadows(self) -> tuple[Policy, ...]:
        return tuple(policy for policy in self.policies if policy.shadow)


class Policies:
    """All policies of a service, and what a route asks for by their names.

    Args:
        policies: one of them is called `default`.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._by_name = {policy.name: policy for policy in policies}
        self._spelled: dict[str, Applied] = {}
        self._combined: dict[frozenset[str], Applied] = {}
        self.default = self.named(DEFAULT)

    def named(self, names: str) -> Applied:
        """The policies of these names, between commas.

        Raises:
            UnknownPolicy: there is none of a name, one is named twice, or there are too many.
        """
        found = self._spelled.get(names)
        if found is None:
            found = self._find(names)
            if len(self._spelled) < _MAX_SPELLINGS:
                self._spelled[names] = found
        return found

    def _find(self, text: str) -> Applied:
        names = text.split(",")
        wanted = frozenset(names)
        if len(names) > MAX_APPLIED or len(wanted) < len(names) or not self._by_name.keys() >= wanted:
            raise UnknownPolicy()
        # One for each combination, of which there are 2,516 at most, in whatever order it is asked for: what is kept of
        # a token is kept with it, and whoever asks for all orders must push nothing out.
        if wanted not in self._combined:
            chosen = [policy for name, policy in self._by_name.items() if name in wanted]
            chosen.sort(key=lambda policy: policy.shadow)
            limits = tuple(limit for policy in chosen if not policy.shadow for limit in policy.limits)
            self._combined[wanted] = Applied(tuple(chosen), limits)
        return self._combined[wanted]


def parse_policies(text: str) -> tuple[Policy, ...]:
    """Read policies such as `1/5s` or `default=1/5s; search=20/1m, 500/1h; shadow:strict=5/1m`.

    Args:
        text: `name=limits` items between semicolons; limits without a name are `default`, which there must be.

    Raises:
        ValueError: what is wrong with it, as half a sentence.
    """
    items = text.split(";")
    if len(items) > MAX_POLICIES:
        raise ValueError(f"at most {MAX_POLICIES} policies")
    policies: dict[str, Policy] = {}
    for item in items:
        if not item.strip():
            raise ValueError("a policy between semicolons is empty")
        given, named, limits = item.rpartition("=")
        name = given.strip() if named else DEFAULT
        shadow, name = name.startswith(_SHADOW), name.removeprefix(_SHADOW)
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name: a small letter, then small letters, digits and _, 32 at most")
        if name in policies:
            raise ValueError(f"{name!r} is there twice")
        policies[name] = Policy(name, parse_limits(limits, name), shadow)
    if DEFAULT not in policies:
        raise ValueError("there is no policy 'default', which /ping has")
    return tuple(policies.values())
