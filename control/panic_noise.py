"""Keeps the engine's own report of a raised error, a Rust panic with its stack, off the terminal.

Bytewax panics inside when a function of a flow raises, which prints up to a hundred lines about the engine before the
error itself arrives. telflow reports that error with file, line and step, so this one is left out. Everything else
that native code writes to standard error (gRPC, say) passes unchanged, and Python's own `sys.stderr` is not touched.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import BinaryIO

__all__ = ["without_panic_noise", "without_panics"]

_START = re.compile(rb"thread '[^']*' (\(\d+\) )?panicked at src/")  # the engine's sources; no path of another crate
_INSIDE = re.compile(rb"Box<dyn Any>|stack backtrace:|\s+\d+: |\s+at |note: |$")


def without_panics(lines: Iterable[bytes]) -> Iterator[bytes]:
    r"""Yield lines without the panics of the engine; the message of a panic that says more than "Any" is kept.

    >>> list(without_panics([b"a\n", b"thread '<unnamed>' panicked at src/run.rs:1:2:\n", b"Box<dyn Any>\n", b"b\n"]))
    [b'a\n', b'b\n']
    """
    inside = False
    for line in lines:
        if _START.match(line):
            inside = True
        elif not (inside and _INSIDE.match(line)):
            inside = False
            yield line


@contextlib.contextmanager
def without_panic_noise() -> Iterator[None]:
    """Filter what native code writes to file descriptor 2 while the block runs."""
    sys.stderr.flush()
    terminal = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    python_stderr = sys.stderr
    if _is_descriptor_2():
        sys.stderr = os.fdopen(os.dup(terminal), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    copier = threading.Thread(target=_copy, args=(os.fdopen(reading, "rb", buffering=0), terminal), daemon=True)
    copier.start()
    try:
        yield
    finally:
        if sys.stderr is not python_stderr:
            sys.stderr.close()
            sys.stderr = python_stderr
        os.dup2(terminal, 2)  # closes the pipe's last writing end, and with it the copier's input
        copier.join(timeout=5)
        os.close(terminal)


def _is_descriptor_2() -> bool:
    try:
        return sys.stderr.fileno() == 2  # noqa: PLR2004 - standard error's number
    except (OSError, ValueError, AttributeError):  # a test or a notebook has put something else there
        return False


def _copy(reading: BinaryIO, terminal: int) -> None:
    with reading:
        for line in without_panics(iter(reading.readline, b"")):
            os.write(terminal, line)
