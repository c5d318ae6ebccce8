"""How long it takes a gateway: from sent to acknowledged, and from sent to delivered, at a fixed offered load.

A real `telflow run` with its log synced, and in memory. Requests are due at fixed times whether or not those before
them have been answered (an open loop), and every latency counts from when its request was due. The spans' start time is
that moment, so the destination knows how old they are when they arrive. Before a figure counts, every span must have
arrived. The latencies are the gateway's and those of sender and destination, which share this process.

The reference in the same run: the same sender and a server in a process of its own that acknowledges at once and does
nothing else, which is what gRPC takes between two Python processes. Beside them: what the disk itself takes for a write
and fdatasync, and the CPU of a gateway with nothing to do. Delivered includes `coalesce`, whose default is to let a
record wait 200 ms for others; `direct` is without it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa

from bench import payloads, report
from bench.bench_gateway import _cpu_s
from bench.bench_log import disk, percentiles
from connectors.otlp import NullOtlpServer
from connectors.otlp.protocol import ExportRequest
from telflow import Signal
from telflow.codec import decode, encode

OFFERED = {1_000: 50, 10_000: 100, 100_000: 512}
"""Spans a second, and spans of a request."""
MODES = (("fsync", True, True), ("fsync_direct", True, False), ("memory", False, True))
SECONDS = 6.0
IDLE_S = 10.0
_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_SETTINGS = """
receivers: {{otlp: {{grpc: {{endpoint: "127.0.0.1:0"}}, http: false}}}}
telemetry: {{endpoint: "127.0.0.1:0"}}
span_metrics: false
coalesce: {coalesce}
exporters: {{out: {{endpoint: "127.0.0.1:{port}"}}}}
storage: {storage}
"""

_SERVER = """
import sys
from connectors.otlp import NullOtlpServer
with NullOtlpServer(http=None) as server:
    print(server.grpc_port, flush=True)
    sys.stdin.read()
"""


class Arrivals:
    """A destination that notes how old spans are when they arrive."""

    def __init__(self) -> None:
        self.spans = 0
        self.ages_s: list[float] = []
        self._lock = threading.Lock()

    def __call__(self, request: ExportRequest) -> bytes:
        """Take a request; one age for each moment at which its spans were due."""
        now_unix_nano = time.time_ns()
        batch = decode(request.payload, Signal.TRACES)
        due = np.unique(batch.records["start_time_unix_nano"].to_numpy())
        with self._lock:
            self.spans += batch.num_rows
            self.ages_s += ((now_unix_nano - due.astype(np.int64)) / 1e9).tolist()
        return b""


def main() -> None:
    """Run everything, print the figures and write them down."""
    sys.setswitchinterval(0.0002)  # sender and destination share an interpreter, and are not what is measured
    figures: dict[str, Any] = {"disk": disk(), "grpc_alone": grpc_alone()}
    for name, durable, coalesce in MODES:
        with gateway(durable=durable, coalesce=coalesce) as (address, worker, arrivals):
            time.sleep(2)
            before_s = _cpu_s(worker)
            time.sleep(IDLE_S)
            idle = (_cpu_s(worker) - before_s) / IDLE_S
            figures[name] = {"idle_cpu_percent": round(100 * idle, 2)}
            for rate, size in OFFERED.items():
                figures[name][f"{rate}_spans_per_s"] = measure(address, arrivals, rate, size)
    print(json.dumps(figures, indent=2))
    report.write("latency", figures)


def grpc_alone() -> dict[str, Any]:
    """Percentiles of acknowledged where nothing is done with a request."""
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        address = f"127.0.0.1:{int(server.stdout.readline())}"
        figures = {f"{rate}_spans_per_s": measure(address, None, rate, size) for rate, size in OFFERED.items()}
        server.stdin.close()
    return figures


@contextmanager
def gateway(*, durable: bool, coalesce: bool) -> Iterator[tuple[str, int, Arrivals]]:
    """Run a gateway; yield its address, its process and its destination."""
    arrivals = Arrivals()
    with NullOtlpServer(http=None, answer=arrivals) as destination, tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "telflow.yaml"
        settings.write_text(
            _SETTINGS.format(
                port=destination.grpc_port,
                coalesce="{}" if coalesce else "false",
                storage=f"{{dir: {folder}/state}}" if durable else "{durability: memory}",
            )
        )
        command = [sys.executable, "-P", "-m", "telflow", "run", str(settings), "--output", "json"]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        try:
            yield json.loads(worker.stdout.readline())["grpc"], worker.pid, arrivals
            worker.terminate()
            worker.stdout.read()
            assert worker.wait(60) == 0
        finally:
            worker.kill()


def measure(address: str, arrivals: Arrivals | None, spans_per_s: int, size: int) -> dict[str, Any]:
    """Offer a load; percentiles of acknowledged, and of delivered where that is looked at."""
    period_s = size / spans_per_s
    count = int(SECONDS / period_s)
    begin_unix_nano = time.time_ns() + int((0.5 + 2e-6 * count * size) * 1e9)
    due_unix_nano = [begin_unix_nano + int(number * period_s * 1e9) for number in range(count)]
    requests = [_request(size, number, due) for number, due in enumerate(due_unix_nano)]
    expected = 0
    if arrivals is not None:
        arrivals.ages_s.clear()
        expected = arrivals.spans + count * size
    acknowledged_s: list[float] = []
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        export: Any = channel.unary_unary(_EXPORT, None, None)
        export(b"")  # the connection is there
        calls = []
        for due, request in zip(due_unix_nano, requests, strict=True):
            time.sleep(max(0.0, (due - time.time_ns()) / 1e9))
            call = export.future(request)
            call.add_done_callback(lambda _, due=due: acknowledged_s.append((time.time_ns() - due) / 1e9))
            calls.append(call)
        for call in calls:
            call.result()
        _wait(lambda: len(acknowledged_s) == count)
    figures = {"requests": count, "acknowledged_ms": percentiles(acknowledged_s)}
    if arrivals is None:
        return figures
    _wait(lambda: arrivals.spans >= expected)
    assert arrivals.spans == expected, (arrivals.spans, expected)
    return {**figures, "delivered_ms": percentiles(arrivals.ages_s)}


def _wait(done: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 30
    while not done() and time.monotonic() < until_s:
        time.sleep(0.01)


def _request(size: int, number: int, due_unix_nano: int) -> bytes:
    batch = decode(payloads.payload(Signal.TRACES, size, number % 16), Signal.TRACES)
    times = pa.array(np.full(size, due_unix_nano, dtype=np.uint64))
    return encode(batch.with_column("start_time_unix_nano", times))


if __name__ == "__main__":
    main()
