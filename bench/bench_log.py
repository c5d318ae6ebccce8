"""What durability costs: CPU time a span and latency from accept to acknowledged, in memory, `os` and `fsync`.

Everything runs in this process: threads hand requests to an intake as a receiver's threads do, one thread takes batches
as the source does and commits as epochs do. Before a figure counts, every span must have been taken once, and the log
must have given every position once. Beside the latencies stands what the disk itself takes for a write and fdatasync.

Latency is that of an open loop: a request is due at its time whether or not those before it have been acknowledged, and
its latency counts from then.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import payloads, report
from telflow import Signal
from telflow.delivery.intake import MemoryIntake, RequestMeta
from telflow.delivery.log import Durability, Log
from telflow.delivery.log_intake import LogIntake
from telflow.memory import reuse_large_blocks

MODES = ("memory", "os", "fsync")
SPANS = payloads.SMALL
THREADS = 8
REQUESTS = 1200
ROUNDS = 3
OFFERED = {1_000: 50, 10_000: 100, 100_000: 512}
"""Spans a second, and spans of a request."""
SECONDS = 8.0
SYNCS = 200
WARM_UP = 64


def main() -> None:
    """Run everything, print the figures and write them down."""
    reuse_large_blocks()
    figures: dict[str, Any] = {"disk": disk()}
    figures["cpu_us_per_span"] = costs()
    figures["latency_ms"] = {
        mode: {f"{rate}_spans_per_s": latency(mode, rate, size) for rate, size in OFFERED.items()} for mode in MODES
    }
    print(json.dumps(figures, indent=2))
    report.write("log", figures)


def disk() -> dict[str, float]:
    """Milliseconds that a write of 32 KiB with fdatasync takes: to the end of a file, and over what is there."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = os.open(f"{folder}/file", os.O_CREAT | os.O_RDWR)
        for name in ("append", "overwrite"):
            times = []
            for number in range(SYNCS):
                os.pwrite(file, os.urandom(32 << 10), number * (32 << 10))
                begun = time.perf_counter()
                os.fdatasync(file)
                times.append(time.perf_counter() - begun)
            found |= {f"fdatasync_{name}_{p}_ms": value for p, value in percentiles(times).items()}
        os.close(file)
    return found


def costs() -> dict[str, Any]:
    """CPU time of the whole process for a span, decoding and taking included: the best of some rounds."""
    requests = [meta(SPANS, seed) for seed in range(16)]
    best: dict[str, float] = {}
    groups: dict[str, float] = {}
    for _ in range(ROUNDS):
        for mode in MODES:
            with opened(mode) as (intake, log), taking(intake, REQUESTS * SPANS):
                before_s = cpu_s()
                with ThreadPoolExecutor(THREADS) as pool:
                    list(pool.map(lambda n, take=intake: take.accept(requests[n % len(requests)]), range(REQUESTS)))
                used_s = cpu_s() - before_s
                if log is not None:
                    assert log.last_position("intake") == REQUESTS
                    groups[mode] = round(REQUESTS / log.counters.commits, 1)
            cost = used_s / (REQUESTS * SPANS) * 1e6
            best[mode] = min(best.get(mode, cost), cost)
    return {
        **{mode: round(cost, 3) for mode, cost in best.items()},
        "durable_beside_memory": round(best["fsync"] - best["memory"], 3),
        "requests_per_commit": groups,
    }


def latency(mode: str, spans_per_s: int, size: int) -> dict[str, float]:
    """Percentiles of accept to acknowledged at an offered load."""
    requests = [meta(size, seed) for seed in range(16)]
    period_s = size / spans_per_s
    count = int(SECONDS / period_s)
    times: list[float] = []
    with opened(mode) as (intake, _), taking(intake, (WARM_UP + count) * size), ThreadPoolExecutor(16) as pool:
        for number in range(WARM_UP):  # threads, buffers and the log's file are there then
            pool.submit(intake.accept, requests[number % len(requests)]).result()
        begun = time.perf_counter() + 0.1

        def send(number: int) -> None:
            intake.accept(requests[number % len(requests)])
            times.append(time.perf_counter() - (begun + number * period_s))

        futures = []
        for number in range(count):
            time.sleep(max(0.0, begun + number * period_s - time.perf_counter()))
            futures.append(pool.submit(send, number))
        for future in futures:
            future.result()
    return {**percentiles(times), "requests": count}


def percentiles(times_s: Sequence[float]) -> dict[str, float]:
    """p50, p99 and p999 in milliseconds."""
    cuts = statistics.quantiles(times_s, n=1000, method="inclusive")
    return {name: round(cuts[at] * 1e3, 3) for name, at in (("p50", 499), ("p99", 989), ("p999", 998))}


@contextmanager
def opened(mode: str) -> Iterator[tuple[MemoryIntake | LogIntake, Log | None]]:
    """An intake of the mode, over a log in a new folder."""
    if mode == "memory":
        yield MemoryIntake(1 << 30), None
        return
    with tempfile.TemporaryDirectory() as folder, Log(Path(folder) / "ingest.db", durability=Durability(mode)) as log:
        intake = LogIntake(log, max_bytes=1 << 30)
        intake.resume(None)
        yield intake, log


@contextmanager
def taking(intake: MemoryIntake | LogIntake, spans: int) -> Iterator[None]:
    """Take batches as the source does, and commit once a second; at the end all must have come."""
    taken = [0]

    def take() -> None:
        epoch_s, snapshot = time.monotonic(), 0
        while not intake.drained:
            taken[0] += sum(batch.num_rows for batch in intake.take(timeout_s=0.02, max_bytes=8 << 20))
            if isinstance(intake, LogIntake) and time.monotonic() - epoch_s > 1:
                intake.commit(snapshot)
                epoch_s, snapshot = time.monotonic(), intake.position

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield
    finally:
        intake.close()
        thread.join()
    assert taken[0] == spans, (taken[0], spans)


def meta(spans: int, seed: int) -> RequestMeta:
    """A request as a receiver hands it over."""
    return RequestMeta("acme", Signal.TRACES, "protobuf", 1, payload=payloads.traces(spans, seed))


def cpu_s() -> float:
    """CPU time of this process so far, in user mode and in the kernel."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
