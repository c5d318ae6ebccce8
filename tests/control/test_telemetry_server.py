"""The telemetry port: three paths, the right status and type on each, and no client that holds it up."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from control.telemetry_server import TelemetryServer
from telflow.errors import ConfigError
from telflow.telemetry import MetricNames

COMPLAINTS: list[str] = []


class Numbers:
    """A collector of one metric."""

    def collect(self) -> Iterator[Metric]:
        if "broken" in COMPLAINTS:
            raise RuntimeError("not for everyone's eyes")
        yield MetricNames().value("answer", "All of it.", 42)


@pytest.fixture
def address() -> Iterator[str]:
    server = TelemetryServer(("127.0.0.1", 0), Numbers(), health=list, readiness=lambda: list(COMPLAINTS))
    yield f"127.0.0.1:{server.start()}"
    server.stop()


def get(address: str, path: str, accept: str = "") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", path, headers={"Accept": accept} if accept else {})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type") or "", answer.read().decode()
    finally:
        connection.close()


def test_metrics_in_both_formats(address: str) -> None:
    """Prometheus's text, and OpenMetrics for those who accept it."""
    status, content_type, text = get(address, "/metrics")
    assert (status, content_type.split(";")[0]) == (200, "text/plain")
    [family] = text_string_to_metric_families(text)
    assert (family.name, family.samples[0].value) == ("telflow_answer", 42)
    status, content_type, text = get(address, "/metrics", "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_readiness_says_why_not(address: str) -> None:
    """200 without complaints, 503 with them; health is another matter."""
    COMPLAINTS[:] = []
    assert (get(address, "/readyz")[0], json.loads(get(address, "/readyz")[2])) == (
        200,
        {"status": "ok", "reasons": []},
    )
    COMPLAINTS[:] = ["being stopped"]
    status, content_type, body = get(address, "/readyz?verbose")
    assert (status, content_type) == (503, "application/json")
    assert json.loads(body) == {"status": "unavailable", "reasons": ["being stopped"]}
    assert get(address, "/healthz")[0] == 200


def test_other_paths_and_methods_are_refused(address: str) -> None:
    """404 with what there is; 501 for anything but GET."""
    status, _, body = get(address, "/")
    assert status == 404
    assert "/metrics" in body
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 501")


def test_a_silent_client_holds_up_nobody(address: str) -> None:
    """Connections that say nothing do not keep another from its metrics."""
    host, port = address.split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(20)]
    started = time.monotonic()
    assert get(address, "/metrics")[0] == 200
    assert time.monotonic() - started < 5
    for connection in silent:
        connection.close()


def test_a_fault_in_the_metrics_is_an_answer(address: str, caplog: pytest.LogCaptureFixture) -> None:
    """500, the details in the log without the exception's text, and the next request is served."""
    COMPLAINTS[:] = ["broken"]
    status, _, body = get(address, "/metrics")
    assert (status, "eyes" in body) == (500, False)
    assert "RuntimeError at test_telemetry_server.py" in caplog.text
    assert "eyes" not in caplog.text
    COMPLAINTS[:] = []
    assert get(address, "/metrics")[0] == 200


def test_a_taken_port_is_an_error(address: str) -> None:
    """It names the setting and the address."""
    host, port = address.split(":")
    other = TelemetryServer((host, int(port)), Numbers(), health=list, readiness=list)
    with pytest.raises(ConfigError, match=f"telemetry.endpoint: {address}"):
        other.start()
    other.stop()
