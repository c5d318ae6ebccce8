"""The `telflow` command in this process: what it wrote and how it ended."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from control.main import main
from control.screen import ACTIVE, Output
from telflow import accounting

__all__ = ["Command", "Ended"]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its result as a program reads it."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """Its error as a program reads it."""
        found: dict[str, Any] = json.loads(self.err)["error"]
        return found


class Command:
    """Runs the command with a ledger of its own, as a process has, and undoes what it leaves behind."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ended:
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "argv", ["telflow", *arguments])
        self._monkeypatch.setattr(accounting.LEDGER, "_counts", {})
        with _restored(), pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        wrote = self._capsys.readouterr()
        return Ended(code if isinstance(code, int) else 0, wrote.out, wrote.err)


@contextmanager
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        ACTIVE.output, ACTIVE.debug = Output.HUMAN, False
        root.handlers[:], root.level = handlers, level
