"""Kills a gateway under load, again and again, and then looks for every acknowledged record.

    python -m tests.torture --kills 200

A real `telflow run` with a durable log, an OTLP destination that is restarted in between, and an archive. Each span has
a number, so that what the senders were told, what the destination got and what the archive holds can be compared one
by one. What must hold:

* every acknowledged span is at the destination (at least once) and in the archive (exactly once);
* span metrics in the archive, made in windows that were open during kills, count each span of the archive once.
"""

from __future__ import annotations

import argparse
import itertools
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from rich.progress import Progress

from connectors.archive import query
from connectors.otlp import NullOtlpServer
from connectors.otlp.settings import GrpcServerSettings
from telflow.codec import decode
from telflow.schema import Signal
from tests.gateway_process import GatewayProcess

__all__ = ["Findings", "torture"]

BASE_UNIX_NANO = 1_760_000_000 * 10**9
SPANS = 20
SENDERS = 4
_TEN_DAYS = 10 * 86_400 * 10**9
_SETTINGS = """
receivers: {{otlp: {{grpc: {{endpoint: "127.0.0.1:{own}"}}, http: false}}}}
storage: {{dir: {folder}/state, durability: {durability}}}
epoch: 200ms
span_metrics: {{temporality: delta, lateness: 2d, max_ahead: 36500d, idle_timeout: null}}
exporters: {{out: {{endpoint: "127.0.0.1:{port}", retry_on_failure: {{initial_interval: 50ms, max_interval: 500ms}}}}}}
archive: {{path: {folder}/archive, flush_interval: 2s}}
telemetry: false
"""


@dataclass
class Findings:
    """What came of it, in spans."""

    kills: int = 0
    acknowledged: int = 0
    unanswered: int = 0
    delivered: int = 0
    delivered_again: int = 0
    archived: int = 0
    archived_again: int = 0
    lost_by_export: list[int] = field(default_factory=list)
    lost_by_archive: list[int] = field(default_factory=list)
    counted_in_windows: int = 0
    windowed: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def broken(self) -> list[str]:
        """Which promises were broken."""
        promises = {
            "every acknowledged span is delivered": not self.lost_by_export,
            "every acknowledged span is archived": not self.lost_by_archive,
            "no span is archived twice": not self.archived_again,
            "windows count every archived span once": self.counted_in_windows == self.windowed,
        }
        return [promise for promise, kept in promises.items() if not kept]


class _Load:
    """Senders that go on whatever happens, and remember what they were told."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(SENDERS)]
        self.acknowledged: set[int] = set()
        self.unanswered: set[int] = set()
        self.refused: Counter[str] = Counter()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        with grpc.insecure_channel(self._address, [("grpc.max_reconnect_backoff_ms", 200)]) as channel:
            stub = TraceServiceStub(channel)
            while not self._over.is_set():
                with self._lock:
                    numbers = [next(self._numbers) for _ in range(SPANS)]
                try:
                    stub.Export(request_of(numbers), timeout=10)
                except grpc.RpcError as error:
                    with self._lock:
                        self.unanswered.update(numbers)
                        self.refused[str(error.code())] += 1
                    self._over.wait(0.02)
                else:
                    with self._lock:
                        self.acknowledged.update(numbers)
                    self._over.wait(0.002)


def request_of(numbers: Sequence[int], start_unix_nano: int | None = None) -> ExportTraceServiceRequest:
    """A request of numbered spans: 1 ms apart in event time, so that windows span kills."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in numbers:
        start = start_unix_nano or BASE_UNIX_NANO + number * 10**6
        span = scope.spans.add(
            name="numbered",
            trace_id=(number + 1).to_bytes(16),
            span_id=(number + 1).to_bytes(8),
            start_time_unix_nano=start,
            end_time_unix_nano=start + 1000,
        )
        span.attributes.add(key="number").value.int_value = number
    return request


def torture(
    folder: Path, kills: int, *, seed: int = 0, durability: str = "fsync", pause_s: tuple[float, float] = (0.2, 1.5)
) -> Findings:
    """Run a gateway in `folder`, kill it `kills` times at random moments under load, and compare."""
    chance = random.Random(seed)
    destination = NullOtlpServer(keep=True, http=None)
    destination.start()
    port = destination.grpc_port
    received = [destination]
    own = _free_port()
    settings = folder / "telflow.yaml"
    settings.write_text(_SETTINGS.format(own=own, port=port, folder=folder, durability=durability))
    gateway = GatewayProcess(settings, folder / "gateway.log")
    gateway.start()
    load = _Load(f"127.0.0.1:{own}")
    load.start()
    found = Findings(kills=kills)
    with Progress(disable=not sys.stderr.isatty()) as progress:
        for number in progress.track(range(kills), description="killing"):
            time.sleep(chance.uniform(*pause_s))
            gateway.stop(signal.SIGKILL)
            if number % 5 == 2:
                received[-1].stop()
                if chance.random() < 0.5:
                    gateway.start()  # while the destination is away
                    time.sleep(chance.uniform(0.1, 0.5))
                    _restart(received, port)
                    continue
                _restart(received, port)
            gateway.start()
    time.sleep(0.5)
    load.stop()
    with grpc.insecure_channel(f"127.0.0.1:{own}") as channel:
        # Far later in event time: every window before it closes.
        TraceServiceStub(channel).Export(request_of([2**40], BASE_UNIX_NANO + _TEN_DAYS), timeout=30)
    time.sleep(1)
    gateway.stop()
    received[-1].stop()
    _compare(found, load, received, folder / "archive")
    return found


def _compare(found: Findings, load: _Load, received: list[NullOtlpServer], archive: Path) -> None:
    delivered: Counter[int] = Counter()
    for server in received:
        for request in server.kept:
            if request.signal is Signal.TRACES:
                numbers = decode(request.payload, Signal.TRACES).attribute("number", type=pa.int64())
                delivered.update(numbers.to_pylist())
    archived: Counter[int] = Counter(
        int.from_bytes(span) - 1 for span in query(archive, "select span_id from traces")["span_id"]
    )
    sums = query(archive, "select sum(value_int) as calls from metrics where name = 'traces.span.metrics.calls'")
    last = 2**40
    acknowledged = load.acknowledged
    found.acknowledged, found.unanswered, found.refused = len(acknowledged), len(load.unanswered), load.refused
    found.delivered, found.archived = len(delivered), len(archived)
    found.delivered_again = sum(count - 1 for count in delivered.values())
    found.archived_again = sum(count - 1 for count in archived.values())
    found.lost_by_export = sorted(acknowledged - delivered.keys())
    found.lost_by_archive = sorted(acknowledged - archived.keys())
    found.windowed = len(archived.keys() - {last})
    found.counted_in_windows = int(sums["calls"][0] or 0)


def _restart(received: list[NullOtlpServer], port: int) -> None:
    server = NullOtlpServer(keep=True, http=None, grpc=GrpcServerSettings(endpoint=f"127.0.0.1:{port}"))
    server.start()
    received.append(server)


def _free_port() -> int:
    with NullOtlpServer(http=None) as server:
        return server.grpc_port


def main(arguments: Sequence[str] | None = None) -> int:
    """Torture, print what was found, and return 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--durability", choices=["fsync", "os"], default="fsync")
    options = parser.parse_args(arguments)
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="telflow-torture-") as folder:
        found = torture(Path(folder), options.kills, seed=options.seed, durability=options.durability)
    figures: dict[str, Any] = {
        "kills": found.kills,
        "seed": options.seed,
        "seconds": round(time.monotonic() - started_s),
        "spans acknowledged": found.acknowledged,
        "spans without an answer": found.unanswered,
        "spans delivered": found.delivered,
        "delivered again": found.delivered_again,
        "spans archived": found.archived,
        "archived again": found.archived_again,
        "spans lost by the exporter": len(found.lost_by_export),
        "spans lost by the archive": len(found.lost_by_archive),
        "spans in windows": found.counted_in_windows,
        "spans that should be": found.windowed,
        "refusals": dict(found.refused),
    }
    lines = [f"{name:28} {value}" for name, value in figures.items()]
    lines += [f"BROKEN: {promise}" for promise in found.broken]
    sys.stdout.write("\n".join([*lines, ""]))
    return 1 if found.broken else 0


if __name__ == "__main__":
    sys.exit(main())
