"""One process against two, on the same work: redaction, an aggregation by service and span, and OTLP out.

    python -m bench.bench_cluster [rounds]

Four partitions give batches of 8192 spans that lie decoded in memory, so that the source binds nothing. All spans are
of one tenant, so one of the two workers keeps all windows, and half of what is counted has to cross to it: the least
that a cluster can be good for. It is done with the generic `aggregate` and with the ready-made `span_metrics`. What was
counted, and how many spans and bytes were encoded, must be the same with one process and with two, before any figure
counts.

Every process is bound to a core of its own, the single one too: none may borrow from the other core, by threads of
libraries say. What two cores of this machine give at best is measured in the same rounds: two processes that do all the
work each and know nothing of each other. A core of a virtual machine may be half as fast for some seconds, because of
what others do on the same hardware, so ratios are given at equal speed too: times in units of what encoding a span took
in the same process meanwhile, which is the same work in all of them. How fast batches cross from process to process:
`bench_wire`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import report
from bench.bench_wire import free_ports
from bench.payloads import payload
from telflow import Signal

__all__ = ["main"]

_ROOT = Path(__file__).parent.parent
_TARGET_RATIO = 1.6
_ROUNDS = 5
_BATCHES = 60
_PARTS = 4
_ROWS = 8192
_ALL_ROWS = _PARTS * _BATCHES * _ROWS
_FLOW = """
import json, os, sys, time
import bytewax.operators as op
import pyarrow.compute as pc
from pathlib import Path
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from operators import RedactSettings, SpanMetricsSettings, aggregate, partition, redact, span_metrics
from telflow import Signal
from telflow.aggregation import Count, Histogram
from telflow.codec import decode, encode

PARTS, BATCHES = int(os.environ["PARTS"]), int(os.environ["BATCHES"])
if hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["CORE"]) % len(cores)]})
spans = [decode((Path(__file__).parent / f"{seed}.otlp").read_bytes(), Signal.TRACES) for seed in range(PARTS)]
waiting = True
encoding_s = 0.0

def say(**what):
    print(json.dumps(what), flush=True)

class Part(StatefulSourcePartition):
    def __init__(self, number):
        self.number, self.left = number, BATCHES
    def next_batch(self):
        global waiting
        if waiting:
            waiting = False
            say(ready=True)
            sys.stdin.readline()
            say(start=time.time(), cpu=time.process_time())
        if not self.left:
            raise StopIteration
        self.left -= 1
        return [spans[self.number]]
    def snapshot(self):
        return None

class Source(FixedPartitionedSource):
    def list_parts(self):
        return [str(n) for n in range(PARTS)]
    def build_part(self, step_id, for_part, resume_state):
        return Part(int(for_part))

class Out(StatelessSinkPartition):
    def __init__(self, name):
        self.name, self.count, self.size = name, 0, 0
    def write_batch(self, items):
        for count, size in items:
            self.count += count
            self.size += size
        self.last = time.time()
    def close(self):
        if self.count:
            cpu_s = time.process_time()
            say(name=self.name, count=self.count, bytes=self.size, end=self.last, cpu_end=cpu_s, encoding_s=encoding_s)

class Sink(DynamicSink):
    def __init__(self, name):
        self.name = name
    def build(self, step_id, worker_index, worker_count):
        return Out(self.name)

def encoded(batch):
    global encoding_s
    begun = time.perf_counter()
    size = len(encode(batch))
    encoding_s += time.perf_counter() - begun
    return batch.num_rows, size

flow = Dataflow("cluster")
up = redact("redact", op.input("in", flow, Source()), RedactSettings()).kept
times = {"window": "1h", "series_expiry": "2h", "lateness": "365d", "max_ahead": "36500d"}
times |= {"idle_timeout": None, "emit_on_eof": True}
if os.environ["WORK"] == "aggregate":
    measures = {"calls": Count(), "duration": Histogram(of="duration_s", bounds=(0.01, 0.1, 1))}
    found = aggregate("aggregate", up, by=["service.name", "name"], measures=measures, **times)
    counts = op.map("count", op.key_rm("rows", found.rows), lambda rows: (pc.sum(rows["calls"]).as_py(), 0))
else:
    settings = SpanMetricsSettings.model_validate({"temporality": "delta", **times})
    found = span_metrics("span_metrics", partition("by_tenant", up), settings)
    made = op.key_rm("made", found.metrics)
    counts = op.map("count", made, lambda batch: (pc.sum(batch.records["value_int"]).as_py(), 0))
op.output("counted", counts, Sink("counted"))
op.output("encoded", op.map("encode", up, encoded), Sink("encoded"))
"""


@dataclass(frozen=True)
class _Run:
    """What some processes did between the go and their last output.

    Attributes:
        sums: Count and bytes by name of the output.
        wall_s: Seconds of the clock.
        cpu_s: Seconds of processors.
        work: The time of the slowest, in units of what encoding a span took there.
    """

    sums: dict[str, list[int]]
    wall_s: float
    cpu_s: float
    work: float


def _start(folder: str, work: str, processes: int, first_core: int) -> list[subprocess.Popen[str]]:
    """Start a cluster (or a process that is none) with its processes on consecutive cores."""
    addresses = ";".join(f"127.0.0.1:{port}" for port in free_ports(processes))
    environment = {"PARTS": str(_PARTS), "BATCHES": str(_BATCHES), "POLARS_MAX_THREADS": "1", "WORK": work}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{folder}{os.pathsep}{_ROOT}"}
    command = [sys.executable, "-m", "bytewax.run", "cluster_flow:flow", "-s", "1"]
    places = [["-a", addresses, "-i", str(n)] for n in range(processes)] if processes > 1 else [[]]
    return [
        subprocess.Popen(
            [*command, *place],
            env={**os.environ, **environment, "CORE": str(first_core + number)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, place in enumerate(places)
    ]


def _measure(processes: list[subprocess.Popen[str]]) -> _Run:
    """Let all processes begin at the same time, as soon as the last one is ready."""
    for process in processes:
        assert process.stdout is not None
        # Other lines: a worker that is there before the one it is to talk to.
        assert any('"ready"' in line for line in process.stdout), "a process ended before it began"
    outputs = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        outputs.append(process.communicate(timeout=600)[0])
        assert process.returncode == 0
    starts, ends, cpu_s, work = [], [], 0.0, 0.0
    sums: dict[str, list[int]] = {"counted": [0, 0], "encoded": [0, 0]}
    for output in outputs:
        said = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        (begun,) = (line for line in said if "start" in line)
        ended = [line for line in said if "end" in line]
        starts.append(begun["start"])
        ends += [line["end"] for line in ended]
        last = max(ended, key=lambda line: float(line["end"]))
        encoded = next(line["count"] for line in ended if line["name"] == "encoded")
        work = max(work, (last["end"] - begun["start"]) * encoded / last["encoding_s"])
        cpu_s += max(line["cpu_end"] for line in ended) - begun["cpu"]
        for line in ended:
            sums[line["name"]][0] += line["count"]
            sums[line["name"]][1] += line["bytes"]
    return _Run(sums, max(ends) - min(starts), cpu_s, work)


def _round(folder: str, work: str, number: int) -> dict[str, _Run]:
    """One process, two that know nothing of each other, and a cluster of two: in turn, so that all meet the same."""
    core = number % 2
    return {
        "one": _measure(_start(folder, work, 1, core)),
        "apart": _measure([*_start(folder, work, 1, core), *_start(folder, work, 1, core + 1)]),
        "two": _measure(_start(folder, work, 2, core)),
    }


def _figures(rounds: list[dict[str, _Run]]) -> dict[str, Any]:
    expected = rounds[0]["one"].sums
    assert expected["counted"][0] == expected["encoded"][0] == _ALL_ROWS, (expected, _ALL_ROWS)
    for found in rounds:
        assert found["one"].sums == found["two"].sums == expected
        assert found["apart"].sums == {name: [2 * n for n in sums] for name, sums in expected.items()}
    done = {"one": 1, "apart": 2, "two": 1}
    speeds = {name: [times * _ALL_ROWS / found[name].wall_s for found in rounds] for name, times in done.items()}
    figures: dict[str, Any] = {
        name: {
            "rows_per_s": statistics.median(speeds[name]),
            "rows_per_s_best": max(speeds[name]),
            "cpu_s_per_million_rows": statistics.median(r[name].cpu_s for r in rounds) * 1e6 / _ALL_ROWS / times,
        }
        for name, times in done.items()
    }

    def median(speed: Callable[[_Run], float], of: str, to: str) -> float:
        return statistics.median(done[of] * speed(found[of]) / (done[to] * speed(found[to])) for found in rounds)

    return figures | {
        "ratio": median(_per_s, "two", "one"),
        "ratio_of_bests": max(speeds["two"]) / max(speeds["one"]),
        "ratio_at_equal_speed": median(_at_equal_speed, "two", "one"),
        "ceiling": median(_per_s, "apart", "one"),
        "ceiling_at_equal_speed": median(_at_equal_speed, "apart", "one"),
        "rows_per_s_of_rounds": speeds,
    }


def _per_s(run: _Run) -> float:
    return 1 / run.wall_s


def _at_equal_speed(run: _Run) -> float:
    return 1 / run.work


def main() -> None:
    """Measure, print, and write the figures."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else _ROUNDS
    figures: dict[str, Any] = {"rows": _ALL_ROWS, "rounds": count}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cluster_flow.py").write_text(_FLOW)
        for seed in range(_PARTS):
            (Path(folder) / f"{seed}.otlp").write_bytes(payload(Signal.TRACES, seed=seed))
        for work in ("aggregate", "span_metrics"):
            found = figures[work] = _figures([_round(folder, work, number) for number in range(count)])
            for name in ("one", "apart", "two"):
                speed, cpu = found[name]["rows_per_s"] / 1e6, found[name]["cpu_s_per_million_rows"]
                print(f"{work:12} {name:5} {speed:5.2f} M spans/s, {cpu:5.2f} s of processors per million")
            for kind, suffix in (("as it was", ""), ("at equal speed", "_at_equal_speed")):
                print(
                    f"{work:12} two against one, {kind}: {found[f'ratio{suffix}']:.2f} x in the median of {count} "
                    f"rounds; two apart: {found[f'ceiling{suffix}']:.2f} x"
                )
    print(f"target {_TARGET_RATIO} x; load of the machine {os.getloadavg()[0]:.1f}")
    print(report.write("cluster", figures))


if __name__ == "__main__":
    main()
