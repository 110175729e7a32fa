"""The page that shows people what `/openapi.json` tells programs: `api/docs_page/`, read once."""

import gzip
from functools import cache
from pathlib import Path

from sanic import HTTPResponse, Request

FOLDER = Path(__file__).parent / "docs_page"
PAGE_TYPE = "text/html; charset=utf-8"
SCRIPT_TYPE = "text/javascript; charset=utf-8"
SCRIPT = "rapidoc-9.3.8.js"
"""Its name carries its version, so that browsers may keep it for ever."""

KEEP = "public, max-age=31536000, immutable"

# The viewer writes styles into the page as it goes; scripts are our own file alone, none in the page, none made of
# text. What it shows is tried from here, and from nowhere else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
FIELDS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
ENCODED = {"Vary": "Accept-Encoding"}


@cache
def _read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


@cache
def _compressed(name: str) -> bytes:
    return gzip.compress(_read(name), mtime=0)


def page() -> HTTPResponse:
    """The page."""
    return HTTPResponse(_read("page.html"), 200, dict(FIELDS), PAGE_TYPE)


def script(request: Request) -> HTTPResponse:
    """The viewer, a quarter as large for whoever takes it compressed."""
    fields = ENCODED | {"Cache-Control": KEEP}
    if "gzip" in _encodings(request):
        return HTTPResponse(_compressed(SCRIPT), 200, fields | {"Content-Encoding": "gzip"}, SCRIPT_TYPE)
    return HTTPResponse(_read(SCRIPT), 200, fields, SCRIPT_TYPE)


def _encodings(request: Request) -> set[str]:
    """What a client takes (RFC 9110, 12.5.3); `q=0` says that it does not."""
    given = ",".join(request.headers.getall("accept-encoding", [])).lower().replace(" ", "")
    return {one.partition(";")[0] for one in given.split(",") if not one.rstrip(".0").endswith(";q=")}
