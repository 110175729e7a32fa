"""Windows of usage: the hours and days, in UTC, whose calls are also counted on their own."""

from datetime import UTC, datetime
from typing import Literal

import msgspec

Period = Literal["hour", "day", "all"]
PERIODS: tuple[Period, ...] = ("hour", "day", "all")

HOUR_US = 3_600_000_000
_HOURS = {"h": 1, "d": 24}


class Window(msgspec.Struct, frozen=True):
    """One hour or one day.

    Args:
        kind: `h` or `d`.
        number: how many of its kind have passed since 1970.
    """

    kind: str
    number: int

    @property
    def name(self) -> str:
        """As keys and cursors have it, such as `h496212`."""
        return f"{self.kind}{self.number}"

    @property
    def hours(self) -> int:
        return _HOURS[self.kind]

    @property
    def starts_at(self) -> datetime:
        return datetime.fromtimestamp(self.number * self.hours * 3_600, UTC)

    @property
    def keep_until_ms(self) -> int:
        """When it is forgotten: as long after its end as it lasted, so that a late count or snapshot finds it."""
        return (self.number + 2) * self.hours * 3_600_000


def windows_of(hour: int) -> tuple[Window, Window]:
    """The hour and the day that an hour, counted from 1970, belongs to."""
    return Window("h", hour), Window("d", hour // 24)


def kept_at(now_us: int) -> list[Window]:
    """The windows that are kept at a time, in the order of their names: this hour and day, and those before."""
    hour = now_us // HOUR_US
    day = hour // 24
    return sorted((Window(kind, n - back) for kind, n in (("h", hour), ("d", day)) for back in (0, 1)), key=_name)


def current(period: Period, now_us: int) -> Window | None:
    """This hour or this day; None for all time."""
    hour, day = windows_of(now_us // HOUR_US)
    return {"hour": hour, "day": day, "all": None}[period]


def _name(window: Window) -> str:
    return window.name
