"""The whole gateway, as users run it, in memory and durable: CPU of the worker process per span, and where it goes.

    OTLP/gRPC in (512 spans a request) -> coalesce -> redact -> span metrics -> OTLP/gRPC out to a null server

The gateway is `telflow run` in a process of its own on one core; load generator and null server share another. Before
any figure counts, the gateway's own account must say that every span sent was delivered, and the null server's bytes
must agree. The kernels are then timed alone on the same requests; what remains of the whole is gRPC and the engine.

The reference in the same run is the Python that a gateway without columns would have to execute: parsing and
serialising every request with the official library, without looking at a single span.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench import payloads, report
from connectors.otlp import NullOtlpServer
from operators import RedactSettings, SpanMetricsSettings
from operators.redact import redact_batch
from operators.span_metrics import SpanMetrics
from telflow import Signal, TelemetryBatch, codec
from telflow.governance import Redactor

SPANS = payloads.SMALL
WARM_UP = 200
WINDOWS = 12
REQUESTS = 300  # in a window
IN_FLIGHT = 16  # two Collectors with their default of 10 consumers come near it
AHEAD_BYTES = 64 << 20
JOINED = 16  # requests that make a batch of 8192 spans
_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_SETTINGS = """
receivers: {{otlp: {{grpc: {{endpoint: "127.0.0.1:0"}}, http: false}}}}
telemetry: {{endpoint: "127.0.0.1:0"}}
# The same requests come again and again, with the same times: none of them is to count as late.
span_metrics: {{temporality: delta, lateness: 1d}}
exporters: {{null_server: {{endpoint: "127.0.0.1:{port}"}}}}
storage: {storage}
"""


def main() -> None:
    """Run everything, print the figures and write them down."""
    requests = [payloads.payload(Signal.TRACES, SPANS, seed) for seed in range(JOINED)]
    whole = gateway(requests)
    durable = gateway(requests, durable=True)
    stages = kernels(requests)
    stages["grpc_and_engine"] = whole["cpu_us_per_span"] - sum(stages.values())
    reference = official(requests)
    figures = {
        **whole,
        "durable": durable,
        "kernels_cpu_us_per_span": {name: round(value, 3) for name, value in stages.items()},
        "official_library_parse_and_serialise_cpu_us_per_span": round(reference, 3),
        "ratio_to_parse_and_serialise_alone": round(reference / whole["cpu_us_per_span"], 2),
        "request_bytes": len(requests[0]),
    }
    print(json.dumps(figures, indent=2))
    report.write("gateway", figures)


def gateway(requests: list[bytes], *, durable: bool = False) -> dict[str, Any]:
    """Send the load through a gateway process; its CPU is read from the kernel's account of that process.

    Durable: every request is in the synced log before it is acknowledged, and the flow's state is saved each second.
    """
    with NullOtlpServer() as destination, tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "telflow.yaml"
        settings.write_text(
            _SETTINGS.format(
                port=destination.grpc_port, storage=f"{{dir: {folder}/state}}" if durable else "{durability: memory}"
            )
        )
        command = [sys.executable, "-P", "-m", "telflow", "run", str(settings), "--output", "json"]
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[:1])
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        os.sched_setaffinity(0, cores[1:] or cores)
        assert worker.stdout is not None
        try:
            address = json.loads(worker.stdout.readline())["grpc"]
            load = Load(address, requests, destination)
            load.send(WARM_UP)
            costs_s = []
            for _ in range(WINDOWS):
                # In motion from beginning to end: what a window leaves over is about what it has found.
                before_s = _cpu_s(worker.pid)
                load.send(REQUESTS)
                costs_s.append(_cpu_s(worker.pid) - before_s)
            worker.terminate()
            last = worker.stdout.readlines()[-1]
            _, status, usage = os.wait4(worker.pid, 0)
        finally:
            worker.kill()
            os.sched_setaffinity(0, cores)
        assert os.waitstatus_to_exitcode(status) == 0
        spans = (WARM_UP + WINDOWS * REQUESTS) * SPANS
        account = {row["signal"]: row for row in json.loads(last)["accounting"]}
        assert account["traces"]["received"] == account["traces"]["delivered"] == spans, account
        if not durable:  # whose open windows wait for the next run
            assert account["metrics"]["delivered"] == account["metrics"]["derived"] > 0, account
        assert destination.payload_bytes(Signal.TRACES) > 0.5 * spans / SPANS * len(requests[0])
    counted = REQUESTS * SPANS
    median_s = statistics.median(costs_s)
    return {
        "spans": spans,
        "spans_per_cpu_s": round(counted / median_s),
        "spans_per_cpu_s_of_the_windows": sorted(round(counted / cost_s) for cost_s in costs_s),
        "cpu_us_per_span": round(median_s / counted * 1e6, 3),
        "cpu_s_per_million_spans": round(median_s / counted * 1e6, 3),
        "peak_memory_mib": usage.ru_maxrss // 1024,
    }


class Load:
    """A sender that never gets far ahead of what has come out at the other end.

    The gateway acknowledges what it holds in memory; a sender that did not look at the other end would measure how it
    refuses what is beyond its budget.
    """

    def __init__(self, address: str, requests: list[bytes], destination: NullOtlpServer) -> None:
        self._channel = grpc.insecure_channel(address, [("grpc.max_send_message_length", -1)])
        self._export: Any = self._channel.unary_unary(_EXPORT, None, None)
        self._requests = itertools.cycle(requests)
        self._destination = destination
        self._sent_bytes = 0

    def send(self, count: int) -> None:
        """Send `count` requests and wait until all are acknowledged."""
        calls: deque[Any] = deque()
        for request in itertools.islice(self._requests, count):
            while self._sent_bytes - self._destination.payload_bytes(Signal.TRACES) > AHEAD_BYTES:
                time.sleep(0.001)
            if len(calls) >= IN_FLIGHT:
                calls.popleft().result()
            calls.append(self._export.future(request, wait_for_ready=True))
            self._sent_bytes += len(request)
        for call in calls:
            call.result()


def kernels(requests: list[bytes]) -> dict[str, float]:
    """CPU microseconds per span of each kernel alone, on the requests the gateway got."""
    parts = [codec.decode(request, Signal.TRACES) for request in requests]
    joined = TelemetryBatch.concat(parts)
    redactor = Redactor(RedactSettings())
    kept = redact_batch(joined, redactor).kept
    metrics = SpanMetrics(SpanMetricsSettings(temporality="delta", lateness=timedelta(days=1)))
    now = time.time_ns()
    assert kept.num_rows == joined.num_rows == SPANS * JOINED
    return {
        "decode": _cpu_us(lambda: [codec.decode(request, Signal.TRACES) for request in requests]),
        "coalesce": _cpu_us(lambda: TelemetryBatch.concat(parts)),
        "redact": _cpu_us(lambda: redact_batch(joined, redactor)),
        "span_metrics": _cpu_us(lambda: metrics.add(kept, now)),
        "encode": _cpu_us(lambda: codec.encode(kept)),
    }


def official(requests: list[bytes]) -> float:
    """CPU microseconds per span of the official library's parse and serialise."""
    return _cpu_us(lambda: [ExportTraceServiceRequest.FromString(r).SerializeToString() for r in requests])


def _cpu_us(work: Callable[[], object], repeats: int = 7) -> float:
    best = min(_timed(work) for _ in range(repeats))
    return best / (SPANS * JOINED) * 1e6


def _timed(work: Callable[[], object]) -> float:
    started_s = time.process_time()
    work()
    return time.process_time() - started_s


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
