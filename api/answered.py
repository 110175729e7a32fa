"""What is done with an answer that has left: it is counted and logged."""

from sanic import Request


def answered(request: Request, status: int, body_bytes: int, began_s: float) -> None:
    """Take note of an answer; once for each, also of those to requests that could not be read.

    Args:
        began_s: when its request had arrived, by `time.perf_counter`.
    """
    request.app.ctx.traffic.note(request, status, began_s)
    access = request.app.ctx.access
    if access is not None:
        access.note(request, status, body_bytes, began_s)
