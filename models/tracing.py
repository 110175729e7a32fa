"""Whether this process sends traces. While it does not, nothing of OpenTelemetry is imported and nothing wrapped."""

from typing import TYPE_CHECKING

from models.errors import SettingsError
from models.settings import Settings

if TYPE_CHECKING:
    from models.spans import Spans

_MISSING = (
    "OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_EXPORTER: traces are asked for, but OpenTelemetry is not installed;"
    " pip install 'gatehouse[otel]' installs it, and without these variables nothing is traced"
)


def open_tracing(settings: Settings, service: str) -> "Spans | None":
    """The maker of this process's spans, or None when the environment asks for no traces.

    Args:
        service: the process's name in traces, unless `OTEL_SERVICE_NAME` has another.

    Raises:
        SettingsError: they are asked for, and OpenTelemetry is not installed.
    """
    if not settings.tracing:
        return None
    try:
        from models.spans import open_spans  # only now: the extra may not be there, and costs a second to import
    except ImportError as error:
        raise SettingsError([_MISSING]) from error
    return open_spans(service)
