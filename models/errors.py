"""The errors a caller can be told about; `api.errors` gives each its HTTP status.

The docstring's sentence is the message unless the raiser has a more precise one.
"""


class ServiceError(Exception):
    """The service could not do this."""

    code = "service_error"
    retry_after_s: int | None = None

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").partition(".")[0])


class InvalidInput(ServiceError):
    """The request is not valid."""

    code = "invalid_request"


class UnknownPolicy(InvalidInput):
    """There is no such policy in RATE_LIMITS, or more of them than may judge one call."""

    code = "unknown_policy"


class InvalidCredentials(ServiceError):
    """Invalid credentials."""

    code = "invalid_credentials"


class UsernameTaken(ServiceError):
    """Username already exists."""

    code = "username_taken"


class SignupDisabled(ServiceError):
    """Sign-up is switched off here."""

    code = "signup_disabled"


class Overloaded(ServiceError):
    """Too many logins at once; try again shortly."""

    code = "overloaded"
    retry_after_s = 1


class LoginThrottled(ServiceError):
    """Too many login attempts; try again later."""

    code = "login_throttled"

    def __init__(self, wait_us: int) -> None:
        super().__init__()
        self.retry_after_s = max(1, -(-wait_us // 1_000_000))


class StoreUnavailable(ServiceError):
    """A store that this needs is away; try again shortly."""

    code = "store_unavailable"
    retry_after_s = 1


class RedisAway(StoreUnavailable):
    """Redis is away; try again shortly. The command did not run."""


class ReplyLost(RedisAway):
    """Redis is away; try again shortly. Whether it ran the command is not known."""


class RedisRefused(RedisAway):
    """Redis cannot take writes now; try again shortly. It is a replica, or its memory is full."""


class ScriptMissing(RedisRefused):
    """Redis has forgotten a script; try again shortly."""


class SlotMoved(RedisRefused):
    """The cluster has moved what was asked for; try again shortly."""


class RedisBusy(StoreUnavailable):
    """Too many calls wait for Redis; try again shortly."""


class RedisFault(Exception):
    """Redis found a fault in what we asked: never an outage."""


class UnknownUser(ServiceError):
    """There is no such user."""

    code = "unknown_user"


class SettingsError(Exception):
    """The environment does not describe a service that can start.

    Args:
        problems: one sentence a setting: its name, what it got and what it takes.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("Gatehouse cannot start:\n" + "\n".join(f"  {problem}" for problem in problems))
