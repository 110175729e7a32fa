"""The dashboard's pages and files as they are sent: from `api/dashboard/`, read once."""

import hashlib
from functools import cache
from html import escape
from pathlib import Path

from sanic import HTTPResponse, Request
from sanic.exceptions import NotFound

FOLDER = Path(__file__).parent / "dashboard"
FILES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
"""Suffix → media type of what anybody may load."""

FIELDS = {
    # Nothing but our own files, no script or style inside a page, no frame around it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    # Not `no-referrer`: with it browsers hide the origin of a form, by which `api.operator` knows it.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PROBLEM = "<!-- problem -->"


@cache
def _read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


@cache
def names() -> list[str]:
    """The files that anybody may load."""
    return sorted(path.name for path in FOLDER.iterdir() if path.suffix in FILES)


def file(request: Request, name: str) -> HTTPResponse:
    """A file; 304 for whoever has it (RFC 9110, 13.1.2).

    Raises:
        NotFound: there is none of this name for anybody.
    """
    if name not in names():
        raise NotFound()
    content = _read(name)
    tag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
    fields = FIELDS | {"Cache-Control": "no-cache", "ETag": tag}
    known = ",".join(request.headers.getall("if-none-match", []))
    if tag in (one.strip().removeprefix("W/") for one in known.split(",")) or known.strip() == "*":
        return HTTPResponse(b"", 304, fields)
    return HTTPResponse(content, 200, fields, FILES[Path(name).suffix])


def page(name: str, status: int = 200, problem: str = "", headers: dict[str, str] | None = None) -> HTTPResponse:
    """A page of ours, with what went wrong, if it has a place for that."""
    told = f'<p class="problem">{escape(problem)}</p>' if problem else ""
    content = _read(f"{name}.html").replace(_PROBLEM.encode(), told.encode())
    return HTTPResponse(content, status, FIELDS | (headers or {}), "text/html; charset=utf-8")


def see_other(path: str) -> HTTPResponse:
    """Go there with GET (RFC 9110, 15.4.4)."""
    return HTTPResponse(b"", 303, {"Location": path} | FIELDS)
