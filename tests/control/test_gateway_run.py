"""`telflow run` as a gateway: official OTLP clients on one side, a server on the other, and every way it can end."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE
from rich.console import Console

from connectors.otlp import NullOtlpServer
from control import gateway_run
from control.exit_codes import ExitCode, LossError
from control.gateway_run import Gateway
from control.screen import Output, Screen
from flows.gateway import GatewaySettings
from telflow import codec
from telflow.accounting import LEDGER, Ledger, Outcome
from telflow.delivery.storage import StorageSettings
from telflow.packages import ROOT
from telflow.schema import Signal
from tests.batches import key_value
from tests.command import Command

OTHER_PORTS = {"receivers": {"otlp": {"grpc": {"endpoint": "127.0.0.1:0"}, "http": False}}}
ANY_PORT = 'receivers: {otlp: {grpc: {endpoint: "127.0.0.1:0"}, http: {endpoint: "127.0.0.1:0"}}}\n'


def spans(count: int = 3) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add(schema_url="https://opentelemetry.io/schemas/1.26.0")
    resource.resource.attributes.append(key_value("service.name", "shop"))
    scope = resource.scope_spans.add()
    scope.scope.name = "shop.http"
    for number in range(count):
        span = scope.spans.add(name="GET /", trace_id=bytes([1] * 16), span_id=bytes([number + 1] * 8), kind=2)
        span.start_time_unix_nano = 1_750_000_000_000_000_000 + number
        span.end_time_unix_nano = span.start_time_unix_nano + 1_000_000
        span.attributes.append(key_value("list", [1, "two", {"three": 3.0}]))
        span.events.add(name="retry", time_unix_nano=span.start_time_unix_nano)
    return request


def metrics() -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="queue.length", unit="1")
    metric.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    metric.histogram.data_points.add(count=3, sum=1.5, bucket_counts=[1, 2], explicit_bounds=[0.5], time_unix_nano=1)
    return request


def logs() -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(severity_number=9, time_unix_nano=1)
    record.body.string_value = "ready"
    return request


def send_all(address: str) -> None:
    """Send a request of each signal with the official stubs."""
    with grpc.insecure_channel(address) as channel:
        TraceServiceStub(channel).Export(spans(), timeout=20)
        MetricsServiceStub(channel).Export(metrics(), timeout=20)
        LogsServiceStub(channel).Export(logs(), timeout=20)


def stopped_by(action: Callable[[], None], number: signal.Signals = signal.SIGTERM) -> threading.Thread:
    """Do something in another thread, then send this process a signal."""

    def work() -> None:
        try:
            action()
        finally:
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_gateway_process_relays_official_clients_and_drains_to_exit_0(tmp_path: Path) -> None:
    """Every message equal at the other end, nothing in flight after SIGTERM; addresses and account as JSON lines."""
    with NullOtlpServer(keep=True) as server:
        settings = f"exporters: {{out: {{endpoint: '127.0.0.1:{server.grpc_port}'}}}}\nspan_metrics: false\n"
        (tmp_path / "telflow.yaml").write_text(ANY_PORT + settings)
        process = subprocess.Popen(
            [sys.executable, "-m", "telflow", "run", "--output", "json"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            started = json.loads(process.stdout.readline())
            send_all(started["grpc"])
            process.send_signal(signal.SIGTERM)
            stopped = json.loads(process.stdout.readlines()[-1])
        assert process.returncode == 0
    got = {request.signal: request.payload for request in server.kept}
    assert ExportTraceServiceRequest.FromString(got[Signal.TRACES]) == spans()
    assert ExportMetricsServiceRequest.FromString(got[Signal.METRICS]) == metrics()
    assert ExportLogsServiceRequest.FromString(got[Signal.LOGS]) == logs()
    assert started["destinations"] == [f"out (grpc, 127.0.0.1:{server.grpc_port})"]
    sums = {row["signal"]: (row["received"], row["delivered"], row["in_flight"]) for row in stopped["accounting"]}
    assert sums == {"traces": (3, 3, 0), "metrics": (1, 1, 0), "logs": (1, 1, 0)}


def test_people_see_addresses_destinations_and_the_account(telflow: Command, tmp_path: Path) -> None:
    """On standard error; Ctrl-C is an end in good order."""
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    text = f'receivers: {{otlp: {{grpc: {{endpoint: "127.0.0.1:{port}"}}, http: false}}}}\narchive: {{path: data}}\n'
    (tmp_path / "mine.yaml").write_text(text + "console: {max_rows: 0}\n")

    def act() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
        send_all(f"127.0.0.1:{port}")

    thread = stopped_by(act, signal.SIGINT)
    done = telflow("run", "mine.yaml")
    thread.join()
    assert done.code == 0
    assert "telflow gateway, mine.yaml\n" in done.err
    assert f"  OTLP/gRPC on 127.0.0.1:{port}\n  to archive (data), console\n" in done.err
    assert "OTLP/HTTP" not in done.err
    assert "tenant  signal   received  derived  delivered" in done.err
    assert "traces: 3 records" in done.out


def test_a_terminal_has_a_line_that_follows_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Received with its rate, delivered, in flight, and what was lost."""
    monkeypatch.setattr(gateway_run, "_STATUS_EVERY_S", 0.01)
    monkeypatch.setattr(LEDGER, "_counts", {})
    LEDGER.add(Outcome.RECEIVED, Signal.LOGS, "", 12_000, component="otlp")
    LEDGER.add(Outcome.DROPPED, Signal.LOGS, "", 5, component="out", reason="refused")
    LEDGER.add(Outcome.QUARANTINED, Signal.LOGS, "", 7, component="redact")
    screen = Screen(Output.HUMAN)
    screen.err = Console(force_terminal=True, width=200)
    shown: list[str] = []
    seen = threading.Event()

    def show(text: str) -> None:
        shown.append(text)
        seen.set()

    done = threading.Event()
    thread = threading.Thread(target=gateway_run._update, args=(show, done, Gateway(GatewaySettings()).drain))
    thread.start()
    assert seen.wait(10)
    done.set()
    thread.join()
    assert shown[0].startswith("received 12,000 (")
    assert shown[0].endswith("in flight 11,988  dropped 5  quarantined 7")
    with screen.err.capture(), gateway_run._status_line(screen, Gateway(GatewaySettings()).drain):
        pass


def test_the_line_is_there_on_a_real_terminal(tmp_path: Path) -> None:
    """Standard error of the process is a terminal, and stays one while the engine's noise is filtered."""
    (tmp_path / "telflow.yaml").write_text(ANY_PORT)
    terminal, other_end = pty.openpty()
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "-m", "telflow", "run"]
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=other_end, stdout=subprocess.DEVNULL) as process:
        os.close(other_end)
        text = b""
        while b"received 0 (0/s)" not in text:
            read = os.read(terminal, 4096)
            assert read, text
            text += read
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
            while os.read(terminal, 4096):
                pass
    os.close(terminal)
    assert process.returncode == 0
    assert b"waiting for data" in text


def test_records_that_are_unaccounted_for_are_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger's law is checked at every end; only a recovery folder may hold something back."""
    monkeypatch.setattr(LEDGER, "_counts", {})
    LEDGER.add(Outcome.RECEIVED, Signal.LOGS, "", 3, component="otlp")
    with pytest.raises(LossError, match="3 records are unaccounted for"):
        gateway_run._give_account(Screen(), GatewaySettings(storage=StorageSettings(durability="memory")))
    gateway_run._give_account(Screen(), GatewaySettings())


def test_a_failing_flow_closes_the_ports(tmp_path: Path) -> None:
    """Nobody goes on sending to a gateway that has ended; new requests are refused, and the port is free again."""
    settings = GatewaySettings.model_validate(
        {
            "receivers": {"otlp": {"grpc": {"endpoint": "127.0.0.1:0"}, "http": None}},
            "storage": {"dir": str(tmp_path / "state")},
        }
    )
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "recovery").write_text("a file")
    gateway = Gateway(settings, ledger=Ledger())
    ports = gateway.start()
    with pytest.raises(Exception, match="recovery_dir"):
        gateway.run()
    assert ports.grpc is not None
    with socket.socket() as again:
        again.bind(("127.0.0.1", ports.grpc))
    assert tmp_path.is_dir()


def test_a_bad_configuration_starts_nothing(telflow: Command, tmp_path: Path) -> None:
    """Bad input: a wrong settings file. Exit code 2 and every mistake with its place."""
    (tmp_path / "telflow.yaml").write_text("exporters: {out: {endpiont: x}}\narchiv: {path: data}\n")
    done = telflow("run")
    assert done.code == ExitCode.USAGE
    assert "telflow.yaml:1:19: exporters.out.endpiont is not a known key" in done.err
    assert "telflow.yaml:2:1: archiv is not a known key" in done.err
    assert [p["key"] for p in telflow("run", "--output", "json").error["problems"]] == [
        "exporters.out.endpiont",
        "archiv",
    ]


def test_a_memory_budget_that_libraries_alone_would_spend(telflow: Command, tmp_path: Path) -> None:
    """It is refused at the start, with what it takes."""
    (tmp_path / "telflow.yaml").write_text(ANY_PORT + "telemetry: false\nmemory: {max_bytes: 67108864}\n")
    done = telflow("run", "telflow.yaml")
    assert done.code == ExitCode.USAGE
    assert "memory.max_bytes: expected " in done.err
    assert done.err.count("\n") < 5


def test_a_port_that_is_taken(telflow: Command, tmp_path: Path) -> None:
    """Bad input: another process listens there. Exit code 4, the address, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "telflow.yaml").write_text(
            f'receivers: {{otlp: {{grpc: {{endpoint: "127.0.0.1:{port}"}}, http: {{endpoint: "127.0.0.1:0"}}}}}}\n'
        )
        done = telflow("run")
    assert done.code == ExitCode.UNAVAILABLE
    assert f"127.0.0.1:{port}" in done.err
    assert "hint: another process may use the port" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("part", ["archive", "quarantine"])
def test_a_folder_that_cannot_be_written(part: str, telflow: Command, tmp_path: Path) -> None:
    """Bad input: the archive's (or the quarantine's) directory is not writable. Exit code 4 before a port is opened."""
    (tmp_path / "file").write_text("")  # no user, not even root, can make a directory below a file
    (tmp_path / "telflow.yaml").write_text(f"{ANY_PORT}{part}: {{path: file/data}}\n")
    done = telflow("run")
    assert done.code == ExitCode.UNAVAILABLE
    assert f"{part} path 'file/data': expected a directory" in done.err
    assert "hint: create it for the user telflow runs as" in done.err


def test_two_gateways_do_not_share_a_folder(telflow: Command, tmp_path: Path) -> None:
    """Bad input: another gateway has the storage folder. Exit code 4, who has it, and what to do."""
    (tmp_path / "telflow.yaml").write_text(f"{ANY_PORT}storage: {{dir: state}}\n")
    gateway = Gateway(GatewaySettings.model_validate({**OTHER_PORTS, "storage": {"dir": str(tmp_path / "state")}}))
    gateway.start()
    try:
        done = telflow("run")
    finally:
        gateway._close()
    assert done.code == ExitCode.UNAVAILABLE
    assert f"another process (pid {os.getpid()}) has it open" in done.err
    assert "hint: give each process a storage folder of its own" in done.err


def test_what_was_received_survives_a_kill(tmp_path: Path) -> None:
    """SIGKILL with requests acknowledged and a destination that is gone: the next run delivers all of them."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "telflow", "run", "--output", "json"]
    yaml = f'{ANY_PORT}storage: {{dir: state}}\nspan_metrics: false\nexporters: {{out: {{endpoint: "127.0.0.1:%d"}}}}\n'
    (tmp_path / "telflow.yaml").write_text(yaml % 9)
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["grpc"]
        with grpc.insecure_channel(address) as channel:
            for _ in range(5):
                TraceServiceStub(channel).Export(spans(4), timeout=30)
        process.kill()
    with NullOtlpServer(keep=True) as destination:
        (tmp_path / "telflow.yaml").write_text(yaml % destination.grpc_port)
        with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.terminate()
            last = process.stdout.read()
        assert process.returncode == 0
        (row,) = json.loads(last.splitlines()[-1])["accounting"]
        delivered = [codec.decode(r.payload, r.signal) for r in destination.kept]
    assert sum(batch.num_rows for batch in delivered) == row["delivered"] == row["derived"] == 20
    assert row["in_flight"] == 0
