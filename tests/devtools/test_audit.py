"""The audit of dependencies, by the real pip-audit, against a service that knows one vulnerability."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from devtools.audit import CLEAN, UNKNOWN, VULNERABLE, judged, main

_KNOWN = {
    "id": "PYSEC-1",
    "summary": "what is wrong",
    "details": "what is wrong, at length",
    "affected": [
        {
            "package": {"name": "leaky", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
        }
    ],
    "published": "2026-01-02T03:04:05Z",
}


class _Osv(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(500 if asked["package"]["name"] == "broken" else 200)
        self.end_headers()
        leaks = asked["package"]["name"] == "leaky" and asked["version"] == "1.0"
        self.wfile.write(json.dumps({"vulns": [_KNOWN]} if leaks else {}).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def osv() -> Iterator[str]:
    """Where the service answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Osv) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


def lock(folder: Path, *names: str) -> str:
    """A lock with these dependencies, as uv writes it."""
    path = folder / f"{'-'.join(names)}.lock"
    path.write_text("".join(f"{name} \\\n    --hash=sha256:{'0' * 64}\n" for name in names))
    return str(path)


def test_none_is_vulnerable(osv: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """N2: where each was looked up and nothing found, the audit says how many, and succeeds."""
    assert main(["--osv-url", osv, lock(tmp_path, "sound==1.0", "leaky==1.1")]) == CLEAN
    assert "2 dependencies, none known to be vulnerable" in capsys.readouterr().out


def test_one_is_vulnerable(osv: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """N2: it is named, with what mends it, and the audit fails, whatever else could not be asked."""
    locks = [lock(tmp_path, "sound==1.0", "leaky==1.0"), lock(tmp_path, "broken==1.0")]
    assert main(["--osv-url", osv, *locks]) == VULNERABLE
    assert "leaky 1.0 is vulnerable: PYSEC-1, mended in 1.1" in capsys.readouterr().err


def test_it_cannot_be_asked(osv: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """N2: a service that is not reached, or that fails, is not taken for one that found nothing."""
    assert main(["--osv-url", osv, lock(tmp_path, "sound==1.0", "broken==1.0")]) == UNKNOWN
    assert main(["--osv-url", "http://127.0.0.1:9/", lock(tmp_path, "sound==1.0")]) == UNKNOWN
    assert capsys.readouterr().err.count("not audited") == 2


def test_what_was_skipped_was_not_audited() -> None:
    """N2: a dependency that pip-audit passes over, and a lock without any, are no clean ones."""
    skipped = {"name": "x", "skip_reason": "not found"}
    assert judged({"dependencies": [{"name": "y", "version": "1", "vulns": []}, skipped]}) == (
        UNKNOWN,
        ["not audited: x: not found"],
    )
    assert judged({"dependencies": []})[0] == UNKNOWN
