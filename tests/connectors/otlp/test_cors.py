"""CORS: what a browser is told, over real sockets, and a real browser where there is one."""

from __future__ import annotations

import http.server
import os
import shutil
import signal as signals
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from connectors.otlp.settings import CorsSettings
from telflow import Signal
from tests.connectors.otlp.conftest import Start, request_message
from tests.connectors.otlp.senders import HttpSender, Reply

PAGE = "https://shop.example.com"
CORS = {"allowed_origins": ["https://*.example.com", "http://localhost:*"], "allowed_headers": ["x-api-key"]}
BROWSER = os.environ.get("TELFLOW_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def preflight(running: Any, origin: str, headers: str = "content-type", path: str = "/v1/logs") -> Reply:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": headers}
    return HttpSender("json").send(running, b"", Signal.LOGS, path=path, method="OPTIONS", headers=asked)


def test_a_page_of_an_allowed_origin_may_send(start: Start) -> None:
    """The preflight names origin, method and headers; the answer to the request itself names the origin, too."""
    running = start(http={"cors": CORS}, tenant_header="X-Scope-OrgID")
    asked = preflight(running, PAGE, "content-type,x-scope-orgid, X-API-Key,x-other")
    assert (asked.code, asked.body) == (204, b"")
    assert asked.headers["access-control-allow-origin"] == PAGE
    assert asked.headers["access-control-allow-methods"] == "POST"
    assert asked.headers["access-control-allow-headers"] == "content-type, x-scope-orgid, X-API-Key"
    assert asked.headers["access-control-max-age"] == "7200"
    assert asked.headers["vary"] == "Origin, Access-Control-Request-Headers"
    sent = HttpSender("json").send(running, request_message(Signal.LOGS), Signal.LOGS, headers={"Origin": PAGE})
    assert sent.ok
    assert sent.headers["access-control-allow-origin"] == PAGE
    assert len(running.taken()) == 1


def test_a_refusal_can_be_read_by_the_page(start: Start) -> None:
    """Status, body and Retry-After of a refusal are for the page's exporter as well."""
    running = start(http={"cors": CORS})
    refused = HttpSender("json").send(running, b"{", Signal.LOGS, headers={"Origin": PAGE})
    assert (refused.code, refused.headers["access-control-allow-origin"]) == (400, PAGE)
    assert refused.headers["access-control-expose-headers"] == "Retry-After"


@pytest.mark.parametrize(
    "origin", ["https://example.com", "https://shop.example.com.evil.net", "http://shop.example.com", "null"]
)
def test_a_page_of_another_origin_may_not(start: Start, origin: str) -> None:
    """403 to the preflight; and no answer names the origin."""
    running = start(http={"cors": CORS})
    asked = preflight(running, origin)
    assert (asked.code, asked.status.code) == (403, 7)
    assert "access-control-allow-origin" not in asked.headers
    sent = HttpSender("json").send(running, b"{}", Signal.LOGS, headers={"Origin": origin})
    assert "access-control-allow-origin" not in sent.headers
    assert sent.headers["vary"] == "Origin"


def test_off_by_default(start: Start) -> None:
    """No page may send unless the settings say so: a preflight is a method like any other that is not POST."""
    running = start()
    assert preflight(running, PAGE).code == 405
    sent = HttpSender("json").send(running, b"{}", Signal.LOGS, headers={"Origin": PAGE})
    assert not [name for name in sent.headers if name.startswith("access-control")]


def test_any_origin_and_any_header(start: Start) -> None:
    """With * the origin is still named: a browser that sends credentials accepts nothing else."""
    running = start(http={"cors": {"allowed_origins": ["*"], "allowed_headers": ["*"], "max_age": "0"}})
    asked = preflight(running, PAGE, "x-anything")
    assert asked.headers["access-control-allow-origin"] == PAGE
    assert asked.headers["access-control-allow-headers"] == "x-anything"
    assert preflight(running, PAGE, "").headers["access-control-allow-headers"] == "content-encoding, content-type"


def test_options_without_asking_for_a_method_is_no_preflight(start: Start) -> None:
    """It is refused like any method but POST."""
    running = start(http={"cors": CORS})
    answer = HttpSender("json").send(running, b"", Signal.LOGS, method="OPTIONS", headers={"Origin": PAGE})
    assert answer.code == 405


def test_an_origin_is_needed() -> None:
    """CORS for nobody is a mistake in the settings."""
    with pytest.raises(ValidationError):
        CorsSettings(allowed_origins=())


_SCRIPT = """
<script>
const body = new Blob(['{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}'], {type: "application/json"});
async function run() {
  const seen = new URLSearchParams();
  try {
    const answer = await fetch(TARGET, {method: "POST", body});
    seen.set("fetch", answer.status + " " + await answer.text());
  } catch (error) { seen.set("fetch", error.name); }
  try {
    const refused = await fetch(TARGET, {method: "POST", body: "{", headers: {"Content-Type": "application/json"}});
    seen.set("refused", refused.status);
  } catch (error) { seen.set("refused", error.name); }
  seen.set("beacon", navigator.sendBeacon(TARGET, body));
  await fetch("/seen?" + seen);
}
run();
</script>
"""


@contextmanager
def page(target: str) -> Iterator[tuple[str, list[dict[str, list[str]]], threading.Event]]:
    """A web page that sends to `target`; its address, and what it reports."""
    reports: list[dict[str, list[str]]] = []
    reported = threading.Event()

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path == "/seen":
                reports.append(parse_qs(url.query))
                reported.set()
            body = _SCRIPT.replace("TARGET", f'"{target}"').encode() if url.path == "/" else b""
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 - the name it has there

    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=site.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://localhost:{site.server_port}/", reports, reported
    finally:
        site.shutdown()
        thread.join()
        site.server_close()


@contextmanager
def browsing(url: str, profile: Path) -> Iterator[None]:
    """A headless browser on a page."""
    assert BROWSER is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    running = subprocess.Popen(
        [BROWSER, *options, "--remote-debugging-port=0", f"--user-data-dir={profile}", url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(running.pid, signals.SIGKILL)
        running.wait(60)


@pytest.mark.skipif(BROWSER is None, reason="no chromium: install it, or name one in TELFLOW_CHROMIUM")
@pytest.mark.parametrize("allowed", [True, False])
def test_a_real_browser(start: Start, tmp_path: Path, allowed: bool) -> None:
    """A page of an allowed origin sends with fetch and sendBeacon and reads refusals; any other sends nothing."""
    running = start(http={"cors": {"allowed_origins": ["http://localhost:*" if allowed else PAGE]}})
    with page(f"http://127.0.0.1:{running.http_port}/v1/logs") as (url, reports, reported), browsing(url, tmp_path):
        assert reported.wait(120)
        received = 0
        if allowed:
            # The beacon is sent behind the page's back.
            for _ in range(600):
                received += sum(batch.num_rows for batch in running.taken())
                if received == 2:
                    break
                threading.Event().wait(0.1)
    (report,) = reports
    assert report["fetch"] == (["200 {}"] if allowed else ["TypeError"])
    assert report["refused"] == (["400"] if allowed else ["TypeError"])
    assert received + sum(batch.num_rows for batch in running.taken()) == (2 if allowed else 0)
