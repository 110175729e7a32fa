"""The span around each request, when traces are sent."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from sanic import HTTPResponse, Request

if TYPE_CHECKING:
    from models.spans import Spans

_CARRIED = ("traceparent", "tracestate", "baggage", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled")
"""The fields of the caller's trace, for whichever propagators `OTEL_PROPAGATORS` names."""


def span_of(spans: "Spans", request: Request) -> AbstractContextManager[Any]:
    """The span in which a request is handled."""
    headers = request.headers
    carried = {name: headers.getone(name) for name in _CARRIED if name in headers}
    return spans.request(_method(request), request.path, str(request.id), carried)


async def complete_span(request: Request, response: HTTPResponse) -> None:
    """Response middleware: tell the request's span what came of it."""
    request.app.ctx.spans.answered(response.status, _method(request), request.uri_template)


def _method(request: Request) -> str:
    return "HEAD" if getattr(request.stream, "head_only", False) else request.method
