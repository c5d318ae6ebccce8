"""One process against two, on the same work: redaction, an aggregation by service and span, and OTLP out.

    python -m bench.bench_cluster

Four partitions give batches of 8192 spans that lie decoded in memory, so that the source binds nothing. What the
aggregation has counted, and how many spans and bytes were encoded, must be the same with one process and with two,
before any figure counts. How fast batches cross from process to process: `bench_wire`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import report
from bench.bench_wire import free_ports

__all__ = ["main", "run"]

_ROOT = Path(__file__).parent.parent
_TARGET_RATIO = 1.6
_ROUNDS = 3
_BATCHES = 60
_PARTS = 4
_ROWS = 8192
_FLOW = """
import json, os, time
import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bench.payloads import payload
from operators import aggregate, redact, RedactSettings
from operators.aggregate import to_metrics
from telflow import Signal
from telflow.aggregation import Count, Histogram
from telflow.codec import decode, encode

PARTS, BATCHES = int(os.environ["PARTS"]), int(os.environ["BATCHES"])
spans = [decode(payload(Signal.TRACES, seed=seed), Signal.TRACES) for seed in range(PARTS)]

def say(**what):
    print(json.dumps(what), flush=True)

class Part(StatefulSourcePartition):
    def __init__(self, number):
        self.number, self.left, self.started = number, BATCHES, False
    def next_batch(self):
        if not self.started:
            self.started = True
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
            say(name=self.name, count=self.count, bytes=self.size, end=self.last, cpu_end=time.process_time())

class Sink(DynamicSink):
    def __init__(self, name):
        self.name = name
    def build(self, step_id, worker_index, worker_count):
        return Out(self.name)

flow = Dataflow("cluster")
up = redact("redact", op.input("in", flow, Source()), RedactSettings()).kept
measures = {"calls": Count(), "duration": Histogram(of="duration_s", bounds=(0.01, 0.1, 1))}
found = aggregate("aggregate", up, by=["service.name", "name"], window="1h", series_expiry="2h", lateness="365d",
                  max_ahead="36500d", measures=measures, idle_timeout=None, emit_on_eof=True)
op.output("counted", op.map("count", op.key_rm("rows", found.rows), lambda rows: (sum(rows["calls"].to_pylist()), 0)),
          Sink("counted"))
op.output("encoded", op.map("encode", up, lambda batch: (batch.num_rows, len(encode(batch)))), Sink("encoded"))
"""


def run(processes: int) -> dict[str, Any]:
    """Run the flow; returns what was counted, and the seconds it took: of the clock, and of all processors."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cluster_flow.py").write_text(_FLOW)
        addresses = ";".join(f"127.0.0.1:{port}" for port in free_ports(processes))
        environment = {"PARTS": str(_PARTS), "BATCHES": str(_BATCHES), "POLARS_MAX_THREADS": "1"}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{folder}{os.pathsep}{_ROOT}"}
        command = [sys.executable, "-m", "bytewax.run", "cluster_flow:flow", "-s", "1"]
        places = [["-a", addresses, "-i", str(n)] for n in range(processes)] if processes > 1 else [[]]
        started = [
            subprocess.Popen([*command, *place], env={**os.environ, **environment}, stdout=subprocess.PIPE)
            for place in places
        ]
        outputs = [process.communicate(timeout=600)[0] for process in started]
        assert [process.returncode for process in started] == [0] * processes
    wall_start, wall_end, cpu_s = [], [], 0.0
    sums: dict[str, list[int]] = {"counted": [0, 0], "encoded": [0, 0]}
    for output in outputs:
        said = [json.loads(line) for line in output.decode().splitlines() if line.startswith("{")]
        wall_start += [line["start"] for line in said if "start" in line]
        wall_end += [line["end"] for line in said if "end" in line]
        cpu_s += max(line["cpu_end"] for line in said if "end" in line) - min(
            line["cpu"] for line in said if "cpu" in line
        )
        for line in (line for line in said if "end" in line):
            sums[line["name"]][0] += line["count"]
            sums[line["name"]][1] += line["bytes"]
    return {"sums": sums, "wall_s": max(wall_end) - min(wall_start), "cpu_s": cpu_s}


def main() -> None:
    """Measure, print, and write the figures."""
    rows = _PARTS * _BATCHES * _ROWS
    rounds = [(run(1), run(2)) for _ in range(_ROUNDS)]  # in turn, so that both have the same neighbours
    expected = rounds[0][0]["sums"]
    assert expected["counted"][0] == expected["encoded"][0] == rows, (expected, rows)
    assert all(found["sums"] == expected for pair in rounds for found in pair)
    figures: dict[str, Any] = {"rows": rows}
    for number, name in enumerate(("one", "two")):
        walls = [pair[number]["wall_s"] for pair in rounds]
        cpus = [pair[number]["cpu_s"] for pair in rounds]
        figures[name] = {
            "rows_per_s": rows / min(walls),
            "cpu_s": min(cpus),
            "rows_per_s_all": [rows / w for w in walls],
        }
        print(f"{name} process(es): {rows / min(walls) / 1e6:5.2f} M spans/s, {min(cpus):5.2f} s of processors")
    ratios = [one["wall_s"] / two["wall_s"] for one, two in rounds]
    best = figures["two"]["rows_per_s"] / figures["one"]["rows_per_s"]
    figures |= {"ratio_of_bests": best, "ratio_median_of_rounds": statistics.median(ratios), "ratios": ratios}
    print(f"two against one: {best:.2f} x of the bests, {statistics.median(ratios):.2f} x in the middle of the rounds")
    print(f"target {_TARGET_RATIO} x; load of the machine {os.getloadavg()[0]:.1f}")
    report.write("cluster", figures)


if __name__ == "__main__":
    main()
