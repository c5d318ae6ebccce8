"""What Bytewax has committed: the states that a resume would start from, read from its recovery files.

A source trims its log, and an archive commits, only what lies in a committed epoch; the engine tells nobody when an
epoch is committed, but its recovery files say it.

They are read by a process of their own. The engine brings its own copy of SQLite, and two copies in one process must
not open the same file: POSIX locks belong to the process, so neither sees the other's, and one of them closing the file
ends the locks of both (sqlite.org/howtocorrupt.html, "Multiple copies of SQLite linked into the same application").
"""

from __future__ import annotations

import base64
import contextlib
import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

from telflow.errors import TelflowError

__all__ = ["CommittedStates"]

_READER = Path(__file__).with_name("committed_reader.py")


class CommittedStates:
    """The states of committed epochs; may be asked from any thread.

    An answer is never ahead of what a resume would start from. It may be a moment old.
    """

    def __init__(self, recovery_dir: Path) -> None:
        """Set up; the reading process starts with the first question.

        Args:
            recovery_dir: The recovery folder. It need not exist yet.
        """
        self._recovery_dir = recovery_dir
        self._asking = threading.Lock()
        self._reader: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, step_id: str, key: str) -> Any | None:
        """Return the state that a resume would give to a step's key; None when there is none.

        Args:
            step_id: Full id of the step, the flow's id first: `gateway.otlp`; that of the core operator within it, when
                the step is made of others.
            key: The state's key; for a source or a sink the partition's name.

        Raises:
            TelflowError: The recovery files cannot be read.
        """
        state = self._ask(step_id, key)[1]
        # Written by the engine of this flow, which unpickles it too when it resumes.
        return None if state is None else pickle.loads(base64.b64decode(state))  # noqa: S301

    def keys(self, step_id: str) -> list[str]:
        """Return the keys of a step that a resume may find state for; none before the first execution.

        Raises:
            TelflowError: The recovery files cannot be read.
        """
        return list(self._ask(step_id, None)[1])

    def resume_epoch(self) -> int | None:
        """Return the epoch that a resume would begin with; None before the first execution."""
        epoch = self._ask("", "")[0]
        return None if epoch is None else int(epoch)

    def close(self) -> None:
        """End the reading process; a further question would start it again."""
        with self._asking:
            self._stop()

    def _ask(self, step_id: str, key: str | None) -> list[Any]:
        question = json.dumps([str(self._recovery_dir.absolute()), step_id, key])
        with self._asking:
            line = self._exchange(question) or self._exchange(question)  # once more if it was killed
        if not line:
            raise TelflowError(f"{self._recovery_dir}: the process that reads the recovery files does not start")
        answer = json.loads(line)
        if isinstance(answer, dict):
            raise TelflowError(
                f"{self._recovery_dir}: the recovery files cannot be read: {answer['error']}\n"
                "  hint: expected a folder that only this flow writes to"
            )
        return list(answer)

    def _exchange(self, question: str) -> str:
        if self._reader is None:
            self._reader = subprocess.Popen(  # noqa: S603 - our own program, without a shell
                [sys.executable, "-I", "-S", str(_READER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
        assert self._reader.stdin is not None  # noqa: S101 - for the type checker
        assert self._reader.stdout is not None  # noqa: S101
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self._reader.stdin.write(f"{question}\n")
            self._reader.stdin.flush()
            line = self._reader.stdout.readline()
        if not line:
            self._stop()
        return line

    def _stop(self) -> None:
        if self._reader is None:
            return
        with contextlib.suppress(BrokenPipeError):
            self._reader.communicate()
        self._reader = None
