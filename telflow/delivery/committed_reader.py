"""Reads Bytewax's recovery files in a process of its own; `telflow.delivery.committed` starts it and asks.

It is run by its path, without the packages of the environment, and imports nothing but the standard library: it takes
a few megabytes. A request is one line of JSON, `[folder, step id, key]`; the answer is one line, `[resume epoch,
snapshot in base64]`, null where there is none, or `{"error": text}`. Where the key is null it is `[resume epoch, list
of the step's keys]`.
"""

from __future__ import annotations

import base64
import json
import signal
import sqlite3
import sys
from contextlib import ExitStack, closing
from pathlib import Path

__all__ = ["committed", "keys", "main"]


def committed(folder: Path, step_id: str, key: str) -> tuple[int | None, bytes | None]:
    """Return the epoch a resume would begin with, and the pickled state that it would give to a step's key.

    The rule is the engine's: the resume epoch is what the slowest worker of the last execution has reached, workers
    that have reported nothing are where the execution began, and the state is the last one of an epoch before that.

    Args:
        folder: The recovery folder.
        step_id: Full id of the step, the flow's id first.
        key: The state's key, for a source or a sink the partition's name.
    """
    with ExitStack() as stack:
        parts = _open(folder, stack)
        epoch = _resume_epoch(parts)
        if epoch is None:
            return None, None
        query = (
            "SELECT snap_epoch, ser_change FROM snaps WHERE step_id = ? AND state_key = ? AND snap_epoch < ? "
            "ORDER BY snap_epoch DESC LIMIT 1"
        )
        found = [row for part in parts for row in part.execute(query, (step_id, key, epoch))]
        return epoch, max(found)[1] if found else None


def keys(folder: Path, step_id: str) -> tuple[int | None, list[str]]:
    """Return the epoch a resume would begin with, and the keys of a step that have had state before it.

    Args:
        folder: The recovery folder.
        step_id: Full id of the step, the flow's id first.
    """
    with ExitStack() as stack:
        parts = _open(folder, stack)
        epoch = _resume_epoch(parts)
        if epoch is None:
            return None, []
        query = "SELECT DISTINCT state_key FROM snaps WHERE step_id = ? AND snap_epoch < ?"
        return epoch, sorted({key for part in parts for (key,) in part.execute(query, (step_id, epoch))})


def _open(folder: Path, stack: ExitStack) -> list[sqlite3.Connection]:
    parts = []
    for path in sorted(folder.glob("part-*.sqlite3")):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        stack.enter_context(closing(connection))
        connection.execute("PRAGMA busy_timeout=5000")
        # What is seen of each file is settled before the epoch is reckoned. What is written meanwhile can then make
        # the answer too old, never too new.
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM fronts").fetchone()
        parts.append(connection)
    return parts


def _resume_epoch(parts: list[sqlite3.Connection]) -> int | None:
    query = "SELECT ex_num, worker_count, resume_epoch FROM exs"
    executions = [row for part in parts for row in part.execute(query)]
    if not executions:
        return None
    number, workers, began = max(executions)
    query = "SELECT worker_index, worker_frontier FROM fronts WHERE ex_num = ?"
    reached = dict.fromkeys(range(workers), began)
    for part in parts:
        for worker, frontier in part.execute(query, (number,)):
            reached[worker] = max(reached[worker], frontier)
    return int(min(reached.values()))


def main() -> None:
    """Answer requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which may still ask while it drains
    for line in sys.stdin:
        folder, step_id, key = json.loads(line)
        answer: object
        try:
            if key is None:
                answer = keys(Path(folder), step_id)
            else:
                epoch, state = committed(Path(folder), step_id, key)
                answer = [epoch, None if state is None else base64.b64encode(state).decode()]
        except sqlite3.Error as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)  # noqa: T201 - this is the answer


if __name__ == "__main__":
    main()
