"""`make audit` tells of what it found, and never takes "could not ask" for "nothing is known"."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer

import pytest

from models.devservers import free_port
from tests.audit import LOCK, UNREACHABLE, judge, main

BAD, GOOD = "sanic-routing", "html5tagger"


class _Advisories(BaseHTTPRequestHandler):
    """Answers as OSV does: one package has an advisory."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]
        affected = {
            "package": asked,
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}],
        }
        known = {"vulns": [{"id": "PYSEC-0", "summary": "Planted.", "affected": [affected]}]}
        body = json.dumps(known if asked["name"] == BAD else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def advisories() -> Iterator[str]:
    with TCPServer(("127.0.0.1", 0), _Advisories) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """Two entries of the real lock file."""
    entries = re.split(r"\n(?=\S)", LOCK.read_text())
    path = tmp_path / "requirements.txt"
    path.write_text("\n".join(entry for entry in entries if entry.startswith((f"{BAD}==", f"{GOOD}=="))) + "\n")
    return path


def test_a_known_vulnerability_is_told(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with advisories() as service:
        assert main(["--lock", str(lock), "--service", service]) == 1
        assert re.fullmatch(rf"{BAD} \S+: PYSEC-0, fixed in 99: Planted\.\n", capsys.readouterr().out)
        lock.write_text(re.split(r"\n(?=\S)", lock.read_text())[0] + "\n")
        assert main(["--lock", str(lock), "--service", service]) == 0
        assert capsys.readouterr().out == "no known vulnerabilities in 1 packages\n"


def test_without_the_service_it_says_that_nothing_was_checked(
    lock: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
        monkeypatch.delenv(name.replace("HTTPS", "NO").replace("https", "no"), raising=False)
    assert main(["--lock", str(lock)]) == 0
    assert capsys.readouterr().out == UNREACHABLE + "\n"


def test_a_pin_without_its_hash_fails(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock.write_text("sanic==25.12.1\n")
    assert main(["--lock", str(lock)]) == 1
    assert "sanic" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("report", "errors", "said"),
    [
        ('{"dependencies":[{"name":"a","skip_reason":"not found"}]}', "", "a: not checked: not found"),
        ('{"dependencies":[]}', "", "the lock file is empty"),
        ("", "Traceback\nKeyError: 'x'", "pip-audit failed:\nTraceback\nKeyError: 'x'"),
        ("", "WARNING: no requests.exceptions.ConnectionError here", "pip-audit failed"),
    ],
)
def test_what_was_not_checked_is_no_success(report: str, errors: str, said: str) -> None:
    told, exit_code = judge(report, errors)
    assert told.startswith(said)
    assert exit_code == 1
