"""Exchange of batches between two processes of a Bytewax cluster: telflow's pickling against pyarrow's own.

    python -m bench.bench_wire

All batches start in one process under a key that belongs to the other. The default is what a flow of record batches
does without telflow: the three tables of a batch pickled by pyarrow.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import report

__all__ = ["free_ports", "main", "run"]

_ROOT = Path(__file__).parent.parent
_TARGET_RATIO = 2.0
_ROUNDS = 3
_FLOW = """
import json, os, time
from datetime import timedelta
import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bench.payloads import payload
from telflow import Signal, TelemetryBatch
from telflow.codec import decode

KIND, COUNT, KEYS = os.environ["KIND"], int(os.environ["COUNT"]), os.environ["KEYS"].split(",")
SENDER = int(os.environ["SENDER"])
whole = decode(payload(Signal.TRACES), Signal.TRACES)
parts = [whole] if "slices" not in KIND else [whole.slice(i * 512, 512) for i in range(16)]

def item(number):
    part = parts[number % len(parts)]
    if KIND.startswith("default"):
        return KEYS[number % len(KEYS)], (part.records, part.resources, part.scopes)
    return KEYS[number % len(KEYS)], TelemetryBatch(part.signal, part.records, part.resources, part.scopes)

class Part(StatelessSourcePartition):
    def __init__(self, mine):
        self.left = COUNT if mine else 0
        if mine:
            time.sleep(1)  # until the other process listens
            print(json.dumps({"start": time.time(), "cpu": time.process_time()}), flush=True)
    def next_batch(self):
        if not self.left:
            raise StopIteration
        self.left -= 1
        return [item(self.left)]

class Source(DynamicSource):
    def build(self, step_id, worker_index, worker_count):
        return Part(worker_index == SENDER)

class Out(StatelessSinkPartition):
    def __init__(self, worker):
        self.worker, self.rows, self.keys, self.cpu = worker, 0, set(), time.process_time()
    def write_batch(self, items):
        for key, found in items:
            self.rows += (found.records if isinstance(found, TelemetryBatch) else found[0]).num_rows
            self.keys.add(key)
            self.last = time.time()
    def close(self):
        cpu = time.process_time() - self.cpu
        if self.rows:
            print(json.dumps({"worker": self.worker, "rows": self.rows, "keys": sorted(self.keys), "end": self.last,
                              "cpu_used": cpu, "bytes": whole.num_bytes}), flush=True)

class Sink(DynamicSink):
    def build(self, step_id, worker_index, worker_count):
        return Out(worker_index)

flow = Dataflow("wire")
up = op.input("in", flow, Source())
out = op.stateful_map("cross", up, lambda state, value: (None, value))
op.output("out", out, Sink())
"""


def run(kind: str, count: int, keys: list[str], sender: int = 0) -> list[dict[str, Any]]:
    """Run the flow in two processes; returns what they said."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "wire_flow.py").write_text(_FLOW)
        addresses = ";".join(f"127.0.0.1:{port}" for port in free_ports(2))
        environment = {"KIND": kind, "COUNT": str(count), "KEYS": ",".join(keys), "SENDER": str(sender)}
        command = [sys.executable, "-m", "bytewax.run", "wire_flow:flow", "-s", "1", "-a", addresses, "-i"]
        path = {"PYTHONPATH": f"{folder}{os.pathsep}{_ROOT}", "POLARS_MAX_THREADS": "1"}
        processes = [
            subprocess.Popen([*command, str(i)], env={**os.environ, **environment, **path}, stdout=subprocess.PIPE)
            for i in range(2)
        ]
        outputs = [process.communicate(timeout=300)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0]
    return [json.loads(line) for output in outputs for line in output.decode().splitlines() if line.startswith("{")]


def keys_of_other() -> list[str]:
    """Some keys that belong to the process which does not send."""
    said = run("telflow slices", 32, [f"k{i}" for i in range(32)])
    return next(list(line["keys"]) for line in said if line.get("worker") == 1)


def measure(kind: str, count: int, keys: list[str]) -> dict[str, float]:
    """Best of a few runs: records and bytes per second from the first send to the last arrival."""
    best = 0.0
    found: dict[str, float] = {}
    for _ in range(_ROUNDS):
        said = run(kind, count, keys)
        start = next(line["start"] for line in said if "start" in line)
        arrived = [line for line in said if "rows" in line]
        assert [line["worker"] for line in arrived] == [1]
        rows = arrived[0]["rows"]
        assert rows == count * (512 if "slices" in kind else 8192)
        rate = rows / (arrived[0]["end"] - start)
        if rate > best:
            best = rate
            found = {"rows_per_s": rate, "mb_per_s": rate * arrived[0]["bytes"] / 8192 / 1e6}
    return found


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def main() -> None:
    """Measure, print, and write the figures."""
    keys = keys_of_other()[:4]
    figures: dict[str, Any] = {}
    for name, count in (("batches of 8192", 60), ("slices of 512", 200)):
        suffix = " slices" if "slices" in name else ""
        figures[name] = {kind: measure(kind + suffix, count, keys) for kind in ("default", "telflow")}
        ratio = figures[name]["telflow"]["rows_per_s"] / figures[name]["default"]["rows_per_s"]
        figures[name]["ratio"] = ratio
        for kind in ("default", "telflow"):
            found = figures[name][kind]
            print(f"{name}, {kind:8}: {found['rows_per_s'] / 1e6:6.2f} M rows/s, {found['mb_per_s']:6.0f} MB/s")
        print(f"{name}: {ratio:.1f} x (target {_TARGET_RATIO:.0f})", time.strftime("%H:%M"))
    report.write("wire", figures)


if __name__ == "__main__":
    main()
