"""A cluster under its real supervisor, `telflow run --workers`, for tests that hurt it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from control.cluster.control_socket import ask
from telflow.errors import TelflowError

__all__ = ["ROOT", "WINDOWED", "Supervised", "gone", "windows"]

ROOT = Path(__file__).parent.parent
WINDOWED = Path(__file__).parent / "windowed_flow.py"
_DAY_IS_SLOW_S = 120.0


class Supervised:
    """One `telflow run` with several workers; `with` ends what is left of it.

    Args:
        folder: Where state, socket and output lie; a further one over the same folder goes on where that one stopped.
        arguments: What follows `telflow run tests/windowed_flow.py`.
        socket: Name of its control socket.
        flow: Another flow.
    """

    def __init__(
        self, folder: Path, *arguments: str, socket: str = "windowed", flow: Path = WINDOWED, **environment: str
    ) -> None:
        self.socket = folder / "run" / "telflow" / f"{socket}.sock"
        (folder / "run").mkdir(exist_ok=True)
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "WINDOWS_OUT": str(folder / "out"),
            **environment,
        }
        self._log = folder / f"{socket}.log"
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "telflow", "run", str(flow), *arguments],
                cwd=folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def log(self) -> str:
        """What it wrote."""
        return self._log.read_text()

    def status(self) -> dict[str, Any]:
        """What `telflow status` says; empty while it does not answer."""
        try:
            return ask(self.socket, {"do": "status"}, 3.0)
        except TelflowError:
            return {}

    def until(self, reached: Callable[[dict[str, Any]], bool], timeout_s: float = _DAY_IS_SLOW_S) -> dict[str, Any]:
        """Wait until the status says so, and return it."""
        until_s = time.monotonic() + timeout_s
        while True:
            assert self.process.poll() is None, self.log
            status = self.status()
            if status and reached(status):
                return status
            assert time.monotonic() < until_s, (status, self.log)
            time.sleep(0.1)

    def running(self, generation: int = 1, epochs: int = 2) -> dict[str, Any]:
        """Wait until the workers of a generation run and have finished some epochs; return the status."""
        status = self.until(lambda s: s["state"] == "running" and s["generation"] >= generation)
        begun = status["epoch"] or 0
        return self.until(lambda s: s["state"] == "running" and (s["epoch"] or 0) >= begun + epochs)

    def order(self, **request: Any) -> dict[str, Any]:
        """Send an order and wait until it is done."""
        return ask(self.socket, request, _DAY_IS_SLOW_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to drain; return how it ended."""
        self.process.send_signal(number)
        return self.process.wait(_DAY_IS_SLOW_S)


def windows(folder: Path) -> list[tuple[str, int, int]]:
    """Check that each window was written once, whole and in order, without a gap; return service, start and count."""
    found = []
    for path in sorted((folder / "out").iterdir()):
        lines = [line.split() for line in path.read_text().rpartition("\n")[0].splitlines()]  # the last may be half
        rows = [(service, int(start), int(count)) for service, start, count in lines]
        twice = [row for row, times in Counter(rows).items() if times > 1]
        assert not twice, twice
        assert [(start, count) for _, start, count in rows] == [(10 * n, 500) for n in range(len(rows))], rows
        found += rows
    return found


def gone(pids: Sequence[int], timeout_s: float = 20.0) -> bool:
    """Wait until none of these processes is left."""
    until_s = time.monotonic() + timeout_s
    while any(_is_alive(pid) for pid in pids):
        if time.monotonic() > until_s:
            return False
        time.sleep(0.05)
    return True


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
