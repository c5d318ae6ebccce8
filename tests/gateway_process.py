"""`telflow run` in a process of its own, to be killed, watched and asked for its account."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from telflow.packages import ROOT

__all__ = ["GatewayProcess"]


class GatewayProcess:
    """A gateway of a settings file; `start` and `stop` may alternate."""

    def __init__(self, settings: Path, log: Path) -> None:
        """Describe it.

        Args:
            settings: Its `telflow.yaml`.
            log: Where its standard error is appended.
        """
        self._command = [sys.executable, "-P", "-m", "telflow", "run", str(settings), "--output", "json"]
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> dict[str, Any]:
        """Start it; returns what it says when its ports are open.

        Raises:
            RuntimeError: It did not start; says what it wrote.
        """
        with self._log.open("a") as log:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the gateway did not start:\n{self.said}")
        started: dict[str, Any] = json.loads(line)
        return started

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout_s: float = 120) -> dict[str, Any]:
        """End it by a signal; returns its account if it gave one.

        Raises:
            RuntimeError: It was to drain and ended with an error; says what it wrote.
        """
        assert self._process is not None
        self._process.send_signal(how)
        try:
            out, _ = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise RuntimeError(f"the gateway did not end within {timeout_s} s:\n{self.said}") from None
        if how is signal.SIGKILL:
            return {}
        if self._process.returncode:
            raise RuntimeError(f"the gateway ended with {self._process.returncode}:\n{self.said}")
        account: dict[str, Any] = json.loads(out.splitlines()[-1])
        return account

    @property
    def said(self) -> str:
        """The end of its standard error."""
        return self._log.read_text()[-4000:]
