"""What the engine has committed of one worker's sinks, learned from its source instead of from the recovery files.

The recovery files of a cluster are spread over its hosts, so no host can tell from its own what is committed. But the
engine asks no source for the data of an epoch before the one before it is committed everywhere
(tests/telflow/delivery/test_committed.py). So when a source is asked again after its snapshot, what the sinks of the
same worker have snapshotted by then is committed, too: none of them can have ended the epoch that the source is in.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from telflow.delivery.committed import CommittedStates
from telflow.placement import Placement

__all__ = ["CommittedAt", "CommittedHere"]

_LAST_WAIT_S = 2.0
_LOOK_S = 0.05


class CommittedHere:
    """The committed states of one worker's sink partitions; may be asked from any thread.

    >>> committed = CommittedHere()
    >>> committed.snapshotted("flow.archive", "archive-000", 7)
    >>> committed.get("flow.archive", "archive-000")
    >>> committed.commit()
    >>> committed.get("flow.archive", "archive-000")
    7
    """

    def __init__(self) -> None:
        """Begin, with nothing committed."""
        self._lock = threading.Lock()
        self._snapshotted: dict[tuple[str, str], Any] = {}
        self._committed: dict[tuple[str, str], Any] = {}

    def get(self, step_id: str, key: str) -> Any | None:
        """Return the state that a resume would give to a sink's partition; None when there is none."""
        return self._committed.get((step_id, key))

    def resumed(self, step_id: str, key: str, state: Any) -> None:
        """Note what a partition has resumed from."""
        with self._lock:
            self._committed[step_id, key] = state

    def snapshotted(self, step_id: str, key: str, state: Any) -> None:
        """Note what a partition returned at the end of an epoch."""
        with self._lock:
            self._snapshotted[step_id, key] = state

    def commit(self) -> None:
        """All that was snapshotted so far is committed: a source was asked again."""
        with self._lock:
            self._committed |= self._snapshotted
            self._snapshotted.clear()

    def commit_last(self, files: CommittedStates) -> None:
        """After the run, learn from the recovery files what of the last epoch is committed; waits a moment for it.

        Args:
            files: All files of the cluster.
        """
        until_s = time.monotonic() + _LAST_WAIT_S
        with self._lock:
            left = dict(self._snapshotted)
        while left and time.monotonic() < until_s:
            left = {place: state for place, state in left.items() if files.get(*place) != state}
            if left:
                time.sleep(_LOOK_S)
        with self._lock:
            self._committed |= {p: state for p, state in self._snapshotted.items() if p not in left}

    def at(self, place: str) -> CommittedAt:
        """Return the same for sinks that know their partitions by the name they have without a place."""
        return CommittedAt(self, place)


class CommittedAt:
    """The committed states of the partitions at one place."""

    def __init__(self, committed: CommittedHere, place: str) -> None:
        """Look at `committed`, for the partitions of a place."""
        self._committed = committed
        self._place = place

    def get(self, step_id: str, key: str) -> Any | None:
        """See `CommittedHere.get`."""
        return self._committed.get(step_id, Placement.named(key, self._place))

    def close(self) -> None:
        """Nothing is open."""
