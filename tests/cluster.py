"""A real Bytewax cluster for tests: as many operating system processes as asked for, joined over loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

__all__ = ["Cluster", "run_cluster"]

ROOT = Path(__file__).parent.parent


class Cluster:
    """Processes that run the `flow` of one file; `with` ends those that are left.

    Args:
        flow_file: Python file with a Bytewax dataflow named `flow`.
        processes: How many.
        environment: Variables the file reads.
        arguments: More for `python -m bytewax.run`.
    """

    def __init__(
        self,
        flow_file: Path,
        processes: int = 2,
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        addresses = ";".join(f"127.0.0.1:{port}" for port in _free_ports(processes))
        command = [sys.executable, "-W", "error", "-m", "bytewax.run", f"{flow_file.stem}:flow", *arguments]
        search = os.pathsep.join([str(flow_file.parent), str(ROOT)])
        self.processes = [
            subprocess.Popen(
                [*command, *(["-i", str(number), "-a", addresses] if processes > 1 else [])],
                env={**os.environ, "PYTHONPATH": search, "POLARS_MAX_THREADS": "1", **(environment or {})},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for number in range(processes)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            if process.stdout is not None and not process.stdout.closed:
                process.communicate()

    def wait_until(self, reached: Callable[[], bool], timeout_s: float = 120) -> None:
        """Wait until `reached` says so, while all processes run."""
        deadline = time.monotonic() + timeout_s
        while not reached():
            ended = [process for process in self.processes if process.poll() is not None]
            assert not ended, ended[0].communicate()[0]
            assert time.monotonic() < deadline, "not reached in time"
            time.sleep(0.02)

    def wait(self, timeout_s: float = 120) -> list[str]:
        """Wait until all processes have ended well; returns what each wrote."""
        outputs = [process.communicate(timeout=timeout_s)[0] for process in self.processes]
        for process, output in zip(self.processes, outputs, strict=True):
            assert process.returncode == 0, output
        return outputs

    def kill(self) -> None:
        """End all processes at once, as a power cut would."""
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
        for process in self.processes:
            process.communicate()


def run_cluster(flow_file: Path, processes: int = 2, environment: Mapping[str, str] | None = None) -> list[str]:
    """Run the flow of a file to its end; returns what each process wrote."""
    with Cluster(flow_file, processes, environment) as cluster:
        return cluster.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
