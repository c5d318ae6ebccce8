"""Ten times more than the destination takes, for a minute: what memory it takes, what senders are told, what arrives.

A real gateway with a durable log, 256 MiB of memory for the whole process and as much disk; a destination that takes a
fixed number of spans per second. Senders offer ten times that and go on when they are refused. Then the load ends, the
destination takes what it is given, and every acknowledged span must have arrived. Resident memory is measured beside
its aim: the budget and a tenth of it. Before any figure counts:

* every refusal is UNAVAILABLE with a RetryInfo (OTLP specification, "OTLP/gRPC Throttling");
* everything acknowledged is delivered.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from bench import payloads, report
from connectors.otlp import NullOtlpServer
from connectors.otlp.protocol import ExportRequest
from telflow import Signal
from telflow.codec import decode

BUDGET_MIB = 256
TAKEN_PER_S = 15_000
OFFERED_TIMES = 10
SENDERS = 6
_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_SETTINGS = """
receivers: {{otlp: {{grpc: {{endpoint: "127.0.0.1:0"}}, http: false}}}}
telemetry: {{endpoint: "127.0.0.1:0"}}
storage: {{dir: {folder}/state, max_bytes: {budget}}}
memory: {{max_bytes: {budget}}}
span_metrics: false
exporters: {{out: {{endpoint: "127.0.0.1:{port}", sending_queue: {{queue_size: {queue}}}}}}}
"""


class Slow:
    """A destination of a fixed rate; `open` lets it take everything at once."""

    def __init__(self) -> None:
        self.spans = 0
        self.open = threading.Event()
        self._lock = threading.Lock()
        self._free_s = 0.0

    def __call__(self, request: ExportRequest) -> bytes:
        """Answer once the rate allows it."""
        spans = decode(request.payload, Signal.TRACES).num_rows
        with self._lock:
            now_s = time.monotonic()
            self._free_s = max(self._free_s, now_s) + spans / TAKEN_PER_S
            wait_s = self._free_s - now_s
        self.open.wait(wait_s)
        with self._lock:
            self.spans += spans
        return b""


class Senders:
    """Offer a fixed rate from several threads; count what each request was told."""

    def __init__(self, address: str, seconds: float) -> None:
        self._address = address
        self._seconds = seconds
        self._lock = threading.Lock()
        self._requests = [payloads.payload(Signal.TRACES, payloads.SMALL, seed) for seed in range(8)]
        self.acknowledged = 0
        self.offered = 0
        self.refused: Counter[str] = Counter()
        self.without_hint = 0

    def run(self) -> None:
        """Send for the time given."""
        threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _send(self) -> None:
        every_s = SENDERS * payloads.SMALL / (TAKEN_PER_S * OFFERED_TIMES)
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self._address, options) as channel:
            export: Any = channel.unary_unary(_EXPORT, None, None)
            due_s = time.monotonic()
            until_s = due_s + self._seconds
            number = 0
            while (now_s := time.monotonic()) < until_s:
                time.sleep(max(due_s - now_s, 0))
                due_s += every_s
                number += 1
                self._one(export, self._requests[number % len(self._requests)])

    def _one(self, export: Any, request: bytes) -> None:
        code, hinted = "OK", True
        try:
            export(request, timeout=30)
        except grpc.RpcError as error:
            code, hinted = error.code().name, _has_retry_info(error)
        with self._lock:
            self.offered += payloads.SMALL
            if code == "OK":
                self.acknowledged += payloads.SMALL
            else:
                self.refused[code] += 1
                self.without_hint += not hinted


def _has_retry_info(error: Any) -> bool:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            details = status_pb2.Status.FromString(value).details
            return any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in details)
    return False


def measure(seconds: float) -> dict[str, Any]:
    """Run it; raises when a promise is broken."""
    slow = Slow()
    with NullOtlpServer(http=None, answer=slow) as destination, tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "telflow.yaml"
        budget = BUDGET_MIB << 20
        settings.write_text(
            _SETTINGS.format(folder=folder, budget=budget, port=destination.grpc_port, queue=budget // 4)
        )
        command = [sys.executable, "-P", "-m", "telflow", "run", str(settings), "--output", "json"]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        try:
            address = json.loads(worker.stdout.readline())["grpc"]
            time.sleep(1)
            idle_mib = _resident_mib(worker.pid)
            senders = Senders(address, seconds)
            peak = _Peak(worker.pid)
            senders.run()
            peak_mib = peak.stop()
            delivered_under_load = slow.spans
            slow.open.set()
            drained_s = _wait_until(lambda: slow.spans >= senders.acknowledged)
            worker.terminate()
            last = json.loads(worker.stdout.readlines()[-1])
            assert worker.wait(60) == 0
        finally:
            worker.kill()
    (account,) = (row for row in last["accounting"] if row["signal"] == "traces")
    assert slow.spans >= senders.acknowledged > 0, (slow.spans, senders.acknowledged)
    assert account["received"] == account["delivered"], account
    assert set(senders.refused) <= {"UNAVAILABLE"}, senders.refused
    assert senders.refused, "nothing was refused: this was no overload"
    assert not senders.without_hint, f"{senders.without_hint} refusals without RetryInfo"
    return {
        "seconds": seconds,
        "spans_offered": senders.offered,
        "spans_acknowledged": senders.acknowledged,
        "spans_delivered": slow.spans,
        "delivered_under_load": delivered_under_load,
        "requests_refused": sum(senders.refused.values()),
        "budget_mib": BUDGET_MIB,
        "resident_mib_before": idle_mib,
        "resident_mib_peak": peak_mib,
        "resident_mib_aim": round(1.1 * BUDGET_MIB),
        "drained_after_s": drained_s,
    }


class _Peak:
    """The highest resident memory of a process while this runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._peak_mib = 0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self._peak_mib = max(self._peak_mib, _resident_mib(self._pid))

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return self._peak_mib


def _resident_mib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1024
    return 0


def _wait_until(done: Any, timeout_s: float = 300) -> float:
    started_s = time.monotonic()
    while not done() and time.monotonic() - started_s < timeout_s:
        time.sleep(0.05)
    return round(time.monotonic() - started_s, 1)


def main() -> None:
    """Measure, print the figures and write them down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    figures = measure(parser.parse_args().seconds)
    print(json.dumps(figures, indent=2))
    report.write("overload", figures)


if __name__ == "__main__":
    main()
