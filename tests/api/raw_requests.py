"""Requests as bytes that another server might understand differently, each with the answer that it gets here."""

LIVE = b"GET /health/live HTTP/1.1\r\n"
HOST = b"Host: x\r\n"
POST = b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKS = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BEHIND = LIVE + HOST + b"\r\n"
"""What is sent behind each: an answer to it would mean that a body was taken for a request."""

LAST = LIVE + HOST + b"Connection: close\r\n\r\n"


def _live(*fields: bytes) -> bytes:
    return LIVE + HOST + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def _target(target: bytes, method: bytes = b"GET") -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n"


def _post(*fields: bytes, body: bytes = b"{}") -> bytes:
    return POST + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


REFUSED: dict[str, tuple[int, bytes]] = {
    # The request line
    "no request line": (400, b"GARBAGE\r\n\r\n"),
    "nothing": (400, b"\r\n\r\n"),
    "an empty line before": (400, b"\r\n" + BEHIND),
    "no version": (400, b"GET /health/live\r\nHost: x\r\n\r\n"),
    "an unknown version": (400, b"GET /health/live HTTP/3.0\r\nHost: x\r\n\r\n"),
    "a version with too many digits": (400, b"GET /health/live HTTP/1.10\r\nHost: x\r\n\r\n"),
    "a version in small letters": (400, b"GET /health/live http/1.1\r\nHost: x\r\n\r\n"),
    "the preface of HTTP/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "a handshake of TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "a space in the target": (400, _target(b"/health/live x")),
    "two spaces after the method": (400, b"GET  /health/live HTTP/1.1\r\nHost: x\r\n\r\n"),
    "two spaces before the version": (400, b"GET /health/live  HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a space after the version": (400, b"GET /health/live HTTP/1.1 \r\nHost: x\r\n\r\n"),
    "a space before the method": (400, b" GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a tab for a space": (400, b"GET\t/health/live HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a method that is no token": (400, _target(b"/health/live", b"GE{T")),
    "a method without end": (400, _target(b"/health/live", b"G" * 33)),
    "bytes beyond ASCII in the target": (400, _target(b"/health/live?\xc3\xa9")),
    "NUL in the target": (400, _target(b"/health/live?\0")),
    "a fragment": (400, _target(b"/health/live#x")),
    "a quote in the target": (400, _target(b'/health/live?"')),
    "a backslash in the target": (400, _target(b"/health\\live")),
    "a broken percent code": (400, _target(b"/health/live?%4")),
    "a target that is no path": (400, _target(b"health/live")),
    "a query alone": (400, _target(b"?x")),
    "a URL with a broken host": (400, _target(b"http://[::1/health/live")),
    "a URL with a user": (400, _target(b"http://u:p@x/health/live")),
    "a URL of another scheme": (400, _target(b"ftp://x/health/live")),
    "a tunnel": (400, _target(b"x:1", b"CONNECT")),
    "an asterisk": (400, _target(b"*")),
    "a target that is too long": (414, _target(b"/" + b"a" * 8_200)),
    # Field lines
    "a space before the colon": (400, _live(b"X : y")),
    "a space before the colon of a length": (400, _post(b"Content-Length : 2")),
    "a tab before the colon": (400, _live(b"X\t: y")),
    "no colon": (400, _live(b"Authorization")),
    "no name": (400, _live(b": y")),
    "a name with a space": (400, _live(b"X Y: z")),
    "a name in brackets": (400, _live(b"(X): y")),
    "a name beyond ASCII": (400, _live(b"X\xe9: y")),
    "a name with NUL": (400, _live(b"X\0: y")),
    "a folded line": (400, _live(b"X: y", b" z")),
    "a folded line with a tab": (400, _live(b"X: y", b"\tz")),
    "a first line that is folded": (400, LIVE + b" X: y\r\n" + HOST + b"\r\n"),
    "a bare LF ends a line": (400, LIVE + b"X: y\n" + HOST + b"\r\n"),
    "bare LFs end all lines": (400, LIVE.replace(b"\r", b"") + b"Host: x\n\n"),
    "a bare CR in a value": (400, _live(b"X: y\rZ: z")),
    "a bare CR ends a line": (400, LIVE + b"X: y\r" + HOST + b"\r\n"),
    "CR CR LF": (400, _live(b"X: y\r")),
    "NUL in a value": (400, _live(b"X: y\0z")),
    "an escape in a value": (400, _live(b"X: \x1b[2J")),
    "DEL in a value": (400, _live(b"X: \x7f")),
    "a vertical tab in a value": (400, _live(b"X: \x0by")),
    "a line that is too long": (431, _live(b"X: " + b"y" * 8_200)),
    "a line that is too long and not at its end": (431, LIVE + HOST + b"X: " + b"y" * 20_000),
    "too many lines": (431, _live(*[b"X: y"] * 100)),
    # Host
    "no host": (400, LIVE + b"\r\n"),
    "two hosts": (400, _live(b"Host: y")),
    "two equal hosts": (400, _live(b"Host: x")),
    "an empty host": (400, LIVE + b"Host:\r\n\r\n"),
    "a list of hosts": (400, LIVE + b"Host: x, y\r\n\r\n"),
    "a host with a path": (400, LIVE + b"Host: x/y\r\n\r\n"),
    "a host with a user": (400, LIVE + b"Host: u@x\r\n\r\n"),
    "a host with a space": (400, LIVE + b"Host: x y\r\n\r\n"),
    "a port that is no number": (400, LIVE + b"Host: x:y\r\n\r\n"),
    "two hosts in HTTP/1.0": (400, b"GET /health/live HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n"),
    # Length
    "a length that is no number": (400, _post(b"Content-Length: abc")),
    "a negative length": (400, _post(b"Content-Length: -2")),
    "a length with plus": (400, _post(b"Content-Length: +2")),
    "a length in hexadecimal": (400, _post(b"Content-Length: 0x2")),
    "a length with underscore": (400, _post(b"Content-Length: 0_2")),
    "a length with a space": (400, _post(b"Content-Length: 0 2")),
    "a length with a fraction": (400, _post(b"Content-Length: 2.0")),
    "a length in other digits": (400, _post("Content-Length: ²".encode())),
    "an endless length": (400, _post(b"Content-Length: " + b"9" * 5_000)),
    "an empty length": (400, _post(b"Content-Length:")),
    "two lengths": (400, _post(b"Content-Length: 2", b"Content-Length: 40")),
    "two equal lengths": (400, _post(b"Content-Length: 2", b"Content-Length: 2")),
    "a list of equal lengths": (400, _post(b"Content-Length: 2, 2")),
    "a length that is too large": (413, _post(b"Content-Length: 16385")),
    # Transfer-Encoding
    "a length and chunks": (400, _post(b"Content-Length: 2", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    "chunks and a length": (400, _post(b"Transfer-Encoding: chunked", b"Content-Length: 2", body=b"0\r\n\r\n")),
    "chunks in HTTP/1.0": (400, CHUNKS.replace(b"1.1", b"1.0") + b"0\r\n\r\n"),
    "an unknown coding": (400, _post(b"Transfer-Encoding: gzip")),
    "identity": (400, _post(b"Transfer-Encoding: identity")),
    "an empty coding": (400, _post(b"Transfer-Encoding:")),
    "two codings": (400, _post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n")),
    "chunked twice": (400, _post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    "chunked, then identity": (400, _post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity")),
    "chunked in quotes": (400, _post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n")),
    "chunked with a parameter": (400, _post(b"Transfer-Encoding: chunked;q=1", body=b"0\r\n\r\n")),
    "chunked after a vertical tab": (400, _post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n")),
    # Chunks
    "a size in another notation": (400, CHUNKS + b"0x2\r\n{}\r\n0\r\n\r\n"),
    "a size with plus": (400, CHUNKS + b"+2\r\n{}\r\n0\r\n\r\n"),
    "a negative size": (400, CHUNKS + b"-2\r\n{}\r\n0\r\n\r\n"),
    "a size with underscore": (400, CHUNKS + b"0_2\r\n{}\r\n0\r\n\r\n"),
    "a size after a space": (400, CHUNKS + b" 2\r\n{}\r\n0\r\n\r\n"),
    "a size before a space": (400, CHUNKS + b"2 \r\n{}\r\n0\r\n\r\n"),
    "no size": (400, CHUNKS + b"\r\n{}\r\n0\r\n\r\n"),
    "a size that is no number": (400, CHUNKS + b"zz\r\n{}\r\n0\r\n\r\n"),
    "a size in other digits": (400, CHUNKS + "²\r\n{}\r\n0\r\n\r\n".encode()),
    "an endless size": (400, CHUNKS + b"0" * 100 + b"2\r\n{}\r\n0\r\n\r\n"),
    "a bare LF after the size": (400, CHUNKS + b"2\n{}\r\n0\r\n\r\n"),
    "an extension without end": (400, CHUNKS + b"2;" + b"x" * 100_000),
    "a long extension": (400, CHUNKS + b"2;" + b"x" * 62 + b"\r\n{}\r\n0\r\n\r\n"),
    "an extension with a bare LF": (400, CHUNKS + b"2;x\n{}\r\n0\r\n\r\n"),
    "an extension with NUL": (400, CHUNKS + b"2;\0\r\n{}\r\n0\r\n\r\n"),
    "a chunk that is longer": (400, CHUNKS + b"2\r\n{}}\r\n0\r\n\r\n"),
    "a chunk that is shorter": (400, CHUNKS + b"3\r\n{}\r\n0\r\n\r\n"),
    "two other bytes behind a chunk": (400, CHUNKS + b"2\r\n{}XX0\r\n\r\n"),
    "a trailer": (400, CHUNKS + b"2\r\n{}\r\n0\r\nX: y\r\n\r\n"),
    "a request for a trailer": (400, CHUNKS + b"2\r\n{}\r\n0\r\n" + BEHIND),
    "a chunk that is too large": (413, CHUNKS + b"4001\r\n"),
    "chunks that are too large": (413, CHUNKS + b"2001\r\n%s\r\n2000\r\n" % (b" " * 0x2001)),
    # Expect
    "an unknown expectation": (417, _post(b"Content-Length: 2", b"Expect: magic")),
    "two expectations": (417, _post(b"Content-Length: 2", b"Expect: 100-continue", b"Expect: 100-continue")),
}

TAKEN: dict[str, tuple[int, bytes]] = {
    "as it should be": (200, _live()),
    "HTTP/1.0 without a host": (200, b"GET /health/live HTTP/1.0\r\n\r\n"),
    "a whole URL": (200, _target(b"http://api.example.org:8000/health/live?x=1")),
    "a whole URL without a path": (404, _target(b"http://api.example.org")),
    "an address of IPv6": (200, LIVE + b"Host: [::1]:8000\r\n\r\n"),
    "a percent code": (404, _target(b"/health%2flive")),
    "a query": (200, _target(b"/health/live?a=b&c=%20;/?:@!$'()*,~")),
    "options of the server": (404, _target(b"*", b"OPTIONS")),
    "a method of its own": (405, _target(b"/health/live", b"M-SEARCH")),
    "no space after the colon": (200, _live(b"X:y")),
    "white space around a value": (200, _live(b"X: \t y \t ")),
    "an empty value": (200, _live(b"X:")),
    "letters of Latin-1 in a value": (200, _live(b"X: \xe9")),
    "a hundred lines": (200, _live(*[b"X: y"] * 99)),
    "a wish for another protocol": (200, _live(b"Connection: upgrade", b"Upgrade: websocket")),
    "a length of nothing": (400, _post(b"Content-Length: 0", body=b"")),
    "a length with zeros": (400, _post(b"Content-Length: 0002")),
    "a body of a GET": (200, _live(b"Content-Length: 5") + b"hello"),
    "chunks": (400, CHUNKS + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"),
    "chunks, spelt otherwise": (400, _post(b"TRANSFER-ENCODING: Chunked", body=b"2\r\n{}\r\n000\r\n\r\n")),
    "a size in small and large letters": (400, CHUNKS + b"a\r\n{         \r\nA\r\n         }\r\n0\r\n\r\n"),
    "an extension": (400, CHUNKS + b'2;name="value"\r\n{}\r\n0 ; x\r\n\r\n'),
}
"""Valid, if not always sensible. 400 is what /login says of the credentials `{}`, and not that this is not HTTP."""
