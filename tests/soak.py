"""A week of telemetry in five minutes, with faults all the time: memory, file handles, threads and disk stay flat.

    python -m tests.soak --seconds 300

A real `telflow run` with a durable log. Time that matters to the flow is event time, and the senders make it: a week of
it passes however long the run takes, so windows close, series come and expire, tenants come and go. The destination is
restarted, refuses, is silent, answers late; some senders send nonsense. In the end everything that was acknowledged
must be accounted for, and what the process holds must be what it held when it had warmed up.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
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
from rich.progress import Progress

from connectors.otlp import NullOtlpServer
from connectors.otlp.protocol import RPC_METHODS, ExportRequest, Refusal
from connectors.otlp.settings import GrpcServerSettings
from telflow.schema import Signal
from tests.gateway_process import GatewayProcess
from tests.oracle import REQUESTS

__all__ = ["Findings", "Level", "soak"]

WEEK_NANO = 7 * 86_400 * 10**9
BASE_UNIX_NANO = 1_760_000_000 * 10**9
RECORDS = 25
_SETTINGS = """
receivers: {{otlp: {{grpc: {{endpoint: "127.0.0.1:0"}}, http: false, tenant_header: x-tenant}}}}
storage: {{dir: {folder}/state, max_bytes: 134217728}}
intake: {{max_bytes: 67108864}}
epoch: 250ms
telemetry: false
span_metrics: {{temporality: delta, lateness: 10m, max_ahead: 36500d, series_expiry: 1h, max_series: 2000}}
exporters:
  out:
    endpoint: "127.0.0.1:{port}"
    timeout: 500ms
    retry_on_failure: {{initial_interval: 50ms, max_interval: 300ms}}
"""


@dataclass(frozen=True)
class Level:
    """What the process holds at a moment."""

    resident_mib: float
    handles: int
    threads: int
    disk_mib: float


@dataclass
class Findings:
    """What came of it."""

    acknowledged: Counter[Signal] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    levels: list[Level] = field(default_factory=list)
    accounts: list[dict[str, Any]] = field(default_factory=list)
    """Of the run under load."""
    later: list[dict[str, Any]] = field(default_factory=list)
    """Of the run after it, which finds in the queues what the first could not deliver in its time to stop."""
    restored: int = 0

    def quarter(self, number: int) -> Level:
        """The median level of a quarter of the run."""
        part = max(len(self.levels) // 4, 1)
        levels = self.levels[part * number : part * (number + 1)]
        return Level(
            *(statistics.median(getattr(level, name) for level in levels) for name in Level.__dataclass_fields__)
        )

    @property
    def broken(self) -> list[str]:
        """Which promises were broken."""
        before, after = self.quarter(1), self.quarter(3)
        received: Counter[str] = Counter()
        for row in self.accounts:
            received[row["signal"]] += row["received"]
        promises = {
            "everything is accounted for": not any(row["in_flight"] for row in self.later)
            and sum(row["in_flight"] for row in self.accounts) == self.restored,
            "nothing acknowledged is missing": all(received[s] >= n for s, n in self.acknowledged.items()),
            "memory is flat": after.resident_mib <= 1.1 * before.resident_mib + 16,
            "file handles are flat": after.handles <= before.handles + 10,
            "threads are flat": after.threads <= before.threads + 4,
            "disk is flat": after.disk_mib <= 1.5 * before.disk_mib + 32,
        }
        return [promise for promise, kept in promises.items() if not kept]


class _Destination:
    """A server whose mood changes every second or two."""

    def __init__(self, chance: random.Random, faults: Counter[str]) -> None:
        self._chance = chance
        self._faults = faults
        self._mood = "well"
        self._over = threading.Event()
        self._server = NullOtlpServer(http=None, answer=self._answer)
        self._server.start()
        self.port = self._server.grpc_port
        self._thread = threading.Thread(target=self._live, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def recover(self) -> None:
        """Be well from now on."""
        self._over.set()
        self._thread.join()

    def stop(self) -> None:
        self._server.stop()

    def _live(self) -> None:
        moods = ("well", "well", "unavailable", "throttled", "silent", "late", "gone")
        while not self._over.wait(self._chance.uniform(0.5, 2)):
            self._mood = self._chance.choice(moods)
            self._faults[self._mood] += 1
            if self._mood == "gone":
                self._server.stop()
                self._over.wait(0.5)
                settings = GrpcServerSettings(endpoint=f"127.0.0.1:{self.port}")
                self._server = NullOtlpServer(http=None, grpc=settings, answer=self._answer)
                self._server.start()
        self._mood = "well"

    def _answer(self, _: ExportRequest) -> bytes:
        match self._mood:
            case "unavailable" if self._chance.random() < 0.7:
                raise Refusal(grpc.StatusCode.UNAVAILABLE, 503, "not now")
            case "throttled":
                raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "slower", retry_after_s=0.1)
            case "silent":
                self._over.wait(2)
            case "late":
                self._over.wait(0.6)
        return b""


def soak(folder: Path, seconds: float, *, seed: int = 0) -> Findings:
    """Run a gateway in `folder` for so long and look at it all the time."""
    chance = random.Random(seed)
    found = Findings()
    destination = _Destination(chance, found.faults)
    settings = folder / "telflow.yaml"
    settings.write_text(_SETTINGS.format(folder=folder, port=destination.port))
    gateway = GatewayProcess(settings, folder / "gateway.log")
    address = gateway.start()["grpc"]
    destination.start()
    lock, started_s = threading.Lock(), time.monotonic()

    def send(signal: Signal) -> None:
        numbers = itertools.count()
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            export: Any = channel.unary_unary(RPC_METHODS[signal], None, None)
            while (passed := (time.monotonic() - started_s) / seconds) < 1:
                number = next(numbers)
                # A day of each tenant, then another takes its place.
                metadata = (("x-tenant", f"tenant {int(passed * 7)} {number % 3}"),)
                body = b"nonsense" if number % 50 == 7 else _request(signal, int(passed * WEEK_NANO))
                try:
                    export(body, metadata=metadata, timeout=10)
                except grpc.RpcError as error:
                    with lock:
                        found.refused[error.code().name] += 1
                else:
                    with lock:
                        found.acknowledged[signal] += RECORDS
                time.sleep(0.01)

    threads = [threading.Thread(target=send, args=(signal,)) for signal in Signal]
    for thread in threads:
        thread.start()
    with Progress(disable=not sys.stderr.isatty()) as progress:
        for _ in progress.track(range(int(seconds)), description="soaking"):
            time.sleep(max(started_s + len(found.levels) + 1 - time.monotonic(), 0))
            found.levels.append(_level(gateway.pid, folder / "state"))
    for thread in threads:
        thread.join()
    destination.recover()
    time.sleep(1)
    found.accounts = gateway.stop()["accounting"]
    gateway.start()
    time.sleep(1)
    last = gateway.stop()
    found.later = last["accounting"]
    found.restored = sum(row["count"] for row in last["counts"] if row["reason"] == "restored")
    destination.stop()
    return found


def _request(signal: Signal, passed_nano: int) -> bytes:
    """Records of this moment of the week; names change by the hour, so that series come and go."""
    request: Any = REQUESTS[signal]()
    now, hour = BASE_UNIX_NANO + passed_nano, passed_nano // (3600 * 10**9)
    if signal is Signal.TRACES:
        scope = request.resource_spans.add().scope_spans.add()
        for number in range(RECORDS):
            name = f"GET /{hour}/{number}"
            scope.spans.add(name=name, start_time_unix_nano=now, end_time_unix_nano=now + 10**6, trace_id=b"t" * 16)
    elif signal is Signal.LOGS:
        scope = request.resource_logs.add().scope_logs.add()
        for number in range(RECORDS):
            scope.log_records.add(time_unix_nano=now).body.string_value = f"{hour} {number} from jane@example.com"
    else:
        metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=f"queue.{hour}")
        for number in range(RECORDS):
            metric.gauge.data_points.add(time_unix_nano=now, as_int=number)
    payload: bytes = request.SerializeToString()
    return payload


def _level(pid: int, state: Path) -> Level:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    disk = 0
    for file in state.rglob("*"):
        try:
            disk += file.stat().st_blocks * 512
        except FileNotFoundError:  # it was just removed
            continue
    return Level(
        int(status["VmRSS"].split()[0]) / 1024,
        sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
        int(status["Threads"]),
        disk / 2**20,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, print what was found, and return 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="telflow-soak-") as folder:
        found = soak(Path(folder), options.seconds, seed=options.seed)
    lines = [f"seed {options.seed}, {options.seconds:g} s"]
    lines += [f"acknowledged {dict(found.acknowledged)}", f"refused {dict(found.refused)}"]
    lines += [f"faults {dict(found.faults)}"]
    lines += [f"quarter {number + 1}: {found.quarter(number)}" for number in range(4)]
    lines += [f"BROKEN: {promise}" for promise in found.broken]
    sys.stdout.write("\n".join([*lines, ""]))
    return 1 if found.broken else 0


if __name__ == "__main__":
    sys.exit(main())
