"""`telflow generate`: load of the shape asked for arrives, and what does not is told."""

from __future__ import annotations

import io
import os
import signal as signals
import threading

import pytest
from rich.console import Console

from connectors.otlp import NullOtlpServer, OtlpClientSettings
from connectors.otlp.protocol import ExportRequest
from control import generate_run
from control.exit_codes import ExitCode
from control.screen import Screen
from flows.generate import GenerateSettings
from telflow import codec
from telflow.accounting import LEDGER, Outcome
from telflow.schema import Signal
from tests.command import Command


def test_the_load_asked_for_arrives(telflow: Command) -> None:
    """Count, signal, attributes, services; equal seeds make equal data."""
    shape = ["--signal", "logs", "--attributes", "4", "--services", "2", "--personal-data", "1", "--rate", "0"]
    bodies = []
    for _ in range(2):
        with NullOtlpServer(keep=True) as server:
            endpoint = f"127.0.0.1:{server.grpc_port}"
            done = telflow("generate", "-e", endpoint, "-n", "600", "--batch", "600", *shape, "--output", "json")
        assert done.code == 0
        assert (done.json["made"], done.json["delivered"]) == (600, 600)
        (request,) = server.kept
        batch = codec.decode(request.payload, Signal.LOGS)
        bodies.append(batch.records["body"].to_pylist())
        assert batch.num_rows == 600
        assert batch.resources.num_rows == 2
        assert b"@" in request.payload
    assert bodies[0] == bodies[1]


def test_tenants_are_named_in_a_header(telflow: Command) -> None:
    """Each sends every signal."""
    with NullOtlpServer(tenant_header="x-tenant", keep=True) as server:
        endpoint = f"http://127.0.0.1:{server.http_port}"
        arguments = ["-n", "1200", "--batch", "100", "--rate", "0", "--tenants", "2", "--tenant-header", "x-tenant"]
        assert telflow("generate", "-e", endpoint, *arguments).code == 0
    sent = {(request.tenant, request.signal) for request in server.kept}
    assert sent == {(tenant, signal) for tenant in ("tenant-1", "tenant-2") for signal in Signal}


def test_it_stops_after_its_duration_or_when_told(telflow: Command) -> None:
    """Both are an end in good order: what was made has arrived."""
    interrupt: list[int] = []

    def answer(_: ExportRequest) -> bytes:
        if interrupt:  # as Ctrl-C would, once it is under way
            os.kill(os.getpid(), interrupt.pop())
        return b""

    with NullOtlpServer(answer=answer) as server:
        endpoint = f"127.0.0.1:{server.grpc_port}"
        timed = telflow("generate", "-e", endpoint, "--duration", "500ms", "--rate", "2000", "-o", "json")
        interrupt.append(signals.SIGINT)
        told = telflow("generate", "-e", endpoint, "--rate", "2000", "-o", "json")
    for done in (timed, told):
        assert done.code == 0
        assert done.json["made"] == done.json["delivered"] > 0


def test_a_destination_that_refuses_is_a_loss(telflow: Command) -> None:
    """Exit code 5, with the reason."""
    with NullOtlpServer(grpc=None) as server:
        endpoint = f"http://127.0.0.1:{server.http_port}/nowhere"
        done = telflow("generate", "-e", endpoint, "-n", "100", "--rate", "0")
    assert done.code == ExitCode.LOSS
    assert "refused (HTTP 404)" in done.out
    assert "100 of 100 records did not arrive" in done.err


def test_a_terminal_has_a_line_with_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived, how fast it goes, and what was dropped."""
    monkeypatch.setattr(generate_run, "_RATE_EVERY_S", 0.01)
    monkeypatch.setattr(LEDGER, "_counts", {})
    LEDGER.add(Outcome.DELIVERED, Signal.LOGS, "", 12_000, component="send")
    LEDGER.add(Outcome.DROPPED, Signal.LOGS, "", 5, component="send", reason="refused")
    shown: list[str] = []
    seen, done = threading.Event(), threading.Event()

    def show(text: str) -> None:
        shown.append(text)
        seen.set()

    thread = threading.Thread(target=generate_run._update, args=(show, done))
    thread.start()
    assert seen.wait(30)
    done.set()
    thread.join()
    assert shown[0].endswith("records/s  sent 12,000  dropped 5")
    screen = Screen()
    screen.err = Console(force_terminal=True, width=100, file=io.StringIO())
    settings = GenerateSettings(exporter=OtlpClientSettings(endpoint="localhost:4317"))
    with generate_run._rate_line(screen, settings):
        pass
    assert "sending to localhost:4317" in screen.err.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--duration", "soon"], "expected a duration such as"),
        (
            ["--errors", "2", "--attributes", "-1"],
            "--attributes: expected greater than or equal to 0, got -1\n--errors",
        ),
        (["--tenants", "65"], "--tenants"),
        (["--compression", "zip"], "compression: expected one of none, gzip, zstd, got 'zip'; did you mean gzip?"),
        (["--endpoint", "nonsense"], "expected host:port"),
    ],
)
def test_wrong_options_are_told_by_their_names(arguments: list[str], said: str, telflow: Command) -> None:
    """All of them, before anything is sent."""
    done = telflow("generate", *arguments)
    assert done.code == ExitCode.USAGE
    assert said in done.err


def test_nothing_at_the_endpoint_is_told_at_once(telflow: Command) -> None:
    """With what to do about it."""
    done = telflow("generate", "-e", "127.0.0.1:1")
    assert done.code == ExitCode.UNAVAILABLE
    assert "start one with `telflow run`" in done.err
