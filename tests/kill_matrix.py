"""Signals to every part of a gateway's cluster under load, again and again; then every record is looked for.

    python -m tests.kill_matrix --rounds 10

Each of three workers gets SIGKILL, SIGSTOP, SIGTERM and SIGINT, and so does the supervisor, which is started again when
it has ended. What is measured: how long until the supervisor knows of it (a loss) or acts on it (a wish to stop), and
how long from then until all workers run again. What must hold is what `tests.gateway_cluster.Found` looks for.
"""

from __future__ import annotations

import argparse
import compileall
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import Progress

from tests.gateway_cluster import DECISION_WAIT_S, Destination, Found, Load, free_port, gateway, gateway_settings
from tests.supervised import ROOT, Supervised, gone

__all__ = ["SIGNALS", "Times", "kill_matrix"]

SIGNALS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT)
DETECTED_S, AGAIN_S = 10.0, 5.0
_POLL_S = 0.02
_STOPPED_S = 6.0  # longer than a worker may be silent
_SLOW_S = 120.0
_CLUSTER = """
hosts: {{local: {{address: 127.0.0.1, workers: {workers}}}}}
port: 0
recovery_dir: state/recovery
restarts: {{limit: 100000, max_interval: 500ms}}
"""


@dataclass
class Times:
    """Seconds until hits were noticed, and from then until all ran again, by what was hit."""

    detected_s: dict[str, list[float]] = field(default_factory=dict)
    again_s: dict[str, list[float]] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)
    """What took longer than it may, and how much of the processors' time other machines had taken meanwhile."""
    other: list[str] = field(default_factory=list)
    """Losses that no hit explains: on a machine that is itself stopped now and then there are some."""

    def add(self, what: str, detected_s: float, again_s: float, stolen: float) -> None:
        """Note a hit, with the share of the processors' time that other machines had taken meanwhile."""
        self.detected_s.setdefault(what, []).append(detected_s)
        self.again_s.setdefault(what, []).append(again_s)
        if detected_s > DETECTED_S:
            self.late.append(f"{what}: noticed after {detected_s:.1f} s")
        if again_s > AGAIN_S:
            self.late.append(f"{what}: again after {again_s:.1f} s, {stolen:.0%} of the processors' time stolen")

    def lines(self) -> list[str]:
        """One line for each kind of hit."""
        lines = []
        for what, detected_s in self.detected_s.items():
            again_s = self.again_s[what]
            shown = [f"{statistics.median(s):5.2f} {max(s):5.2f}" for s in (detected_s, again_s)]
            lines.append(f"{what:20} {len(detected_s):4}   noticed {shown[0]}   again {shown[1]}")
        return lines


def kill_matrix(
    folder: Path, hits: Sequence[tuple[signal.Signals, int]], on_supervisor: Sequence[signal.Signals], workers: int = 3
) -> tuple[Found, Times]:
    """Hit workers (signal, which), then the supervisor, in `folder`; return what came of it."""
    times = Times()
    port = free_port()
    (folder / "cluster.yaml").write_text(_CLUSTER.format(workers=workers))
    with Destination() as destination, ExitStack() as running, Progress(disable=not sys.stderr.isatty()) as progress:
        (folder / "telflow.yaml").write_text(gateway_settings(port, destination.port))
        cluster = running.enter_context(gateway(folder, "--cluster", "cluster.yaml"))
        load = Load(f"127.0.0.1:{port}")
        status = cluster.running()
        with load:
            for number, worker in progress.track(hits, description="workers"):
                load.more(5)
                status = _hit_worker(cluster, status, number, worker, times)
            for number in progress.track(on_supervisor, description="supervisor"):
                load.more(5)
                if number is signal.SIGSTOP:
                    _stop_supervisor(cluster, load, times)
                else:
                    cluster = _hit_supervisor(cluster, number, folder, running, times)
            load.more(5)
            load.stop()
            cluster.running(epochs=4)
            load.last()
            time.sleep(DECISION_WAIT_S + 3)
        assert cluster.stop() == 0, cluster.log
        return load.compared(destination, folder / "archive"), times


def _hit_worker(
    cluster: Supervised, status: dict[str, Any], number: signal.Signals, worker: int, times: Times
) -> dict[str, Any]:
    before, restarts = status["generation"], status["restarts"]
    lost = number in (signal.SIGKILL, signal.SIGSTOP)
    pids = [member["pid"] for member in status["workers"]]
    hit_s = time.time()
    before_ticks = _ticks()
    os.kill(pids[worker], number)
    status = _until(cluster, lambda s: s["state"] != "running" or s["generation"] > before)
    noticed_s = time.time()
    status = _until(cluster, lambda s: s["state"] == "running" and s["generation"] > before)
    again_s = time.time()
    assert gone(pids)
    expected = not lost or f"worker {worker}" in status["last_loss"]["reason"]
    if status["restarts"] - restarts != lost or not expected:
        times.other.append(f"{number.name} of worker {worker}: {status['last_loss']['reason']}")
        return status
    if lost:
        noticed_s = status["last_loss"]["time_unix_nano"] / 1e9
    times.add(f"worker {number.name}", noticed_s - hit_s, again_s - noticed_s, _stolen(before_ticks))
    return status


def _hit_supervisor(
    cluster: Supervised, number: signal.Signals, folder: Path, running: ExitStack, times: Times
) -> Supervised:
    pids = [member["pid"] for member in cluster.status()["workers"]]
    hit_s = time.time()
    cluster.process.send_signal(number)
    code = cluster.process.wait(_SLOW_S)
    assert code == (-number if number is signal.SIGKILL else 0), cluster.log
    assert gone(pids)
    ended_s = time.time()
    before_ticks = _ticks()
    cluster = running.enter_context(gateway(folder, "--cluster", "cluster.yaml"))
    _until(cluster, lambda s: s["state"] == "running")
    times.add(f"supervisor {number.name}", ended_s - hit_s, time.time() - ended_s, _stolen(before_ticks))
    return cluster


def _stop_supervisor(cluster: Supervised, load: Load, times: Times) -> None:
    """The workers go on without it; `telflow status` says that it does not answer."""
    before = cluster.status()
    hit_s = time.time()
    cluster.process.send_signal(signal.SIGSTOP)
    assert not cluster.status()
    noticed_s = time.time()
    load.more(5)
    time.sleep(max(0.0, hit_s + _STOPPED_S - time.time()))
    continued_s = time.time()
    before_ticks = _ticks()
    cluster.process.send_signal(signal.SIGCONT)
    status = _until(cluster, lambda s: s["state"] == "running")
    if status["generation"] != before["generation"]:
        times.other.append(f"SIGSTOP of the supervisor: {status['last_loss']['reason']}")
        return
    times.add("supervisor SIGSTOP", noticed_s - hit_s, time.time() - continued_s, _stolen(before_ticks))


def _ticks() -> tuple[int, int]:
    """What the processors have spent so far, and how much of it on other machines (proc(5), /proc/stat)."""
    first = Path("/proc/stat").read_text().partition("\n")[0]
    spent = [int(ticks) for ticks in first.split()[1:9]]
    return sum(spent), spent[7]


def _stolen(before: tuple[int, int]) -> float:
    spent, stolen = (now - then for now, then in zip(_ticks(), before, strict=True))
    return stolen / max(1, spent)


def _until(cluster: Supervised, reached: Any) -> dict[str, Any]:
    until_s = time.monotonic() + _SLOW_S
    while True:
        assert cluster.process.poll() is None, cluster.log
        status = cluster.status()
        if status and reached(status):
            return status
        assert time.monotonic() < until_s, (status, cluster.log)
        time.sleep(_POLL_S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix, print what was found, and return 1 when a promise was broken or something took too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args(arguments)
    hits = [(number, worker) for number in SIGNALS for worker in range(3)] * options.rounds
    for package in ("telflow", "operators", "connectors", "flows", "control"):
        compileall.compile_dir(ROOT / package, quiet=1)  # as installing does: else each start would read the sources
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="telflow-kill-matrix-") as folder:
        found, times = kill_matrix(Path(folder), hits, SIGNALS * options.rounds)
    figures = {
        "seconds": round(time.monotonic() - started_s),
        "single spans acknowledged": len(found.acknowledged),
        "archived": len(found.archived),
        "counted in windows": found.counted,
        "delivered": len(found.delivered),
        "delivered again": found.delivered.total() - len(found.delivered),
        "whole traces acknowledged": len(found.whole),
        "traces without all answers": len(found.unsure),
        "traces kept": len(found.traces),
    }
    lines = ["seconds: median, most", *times.lines(), *(f"{name:28} {value}" for name, value in figures.items())]
    lines += [f"loss of another kind: {what}" for what in times.other]
    lines += [f"BROKEN: {promise}" for promise in found.broken] + [f"LATE: {what}" for what in times.late]
    sys.stdout.write("\n".join([*lines, ""]))
    return 1 if found.broken or times.late else 0


if __name__ == "__main__":
    sys.exit(main())
