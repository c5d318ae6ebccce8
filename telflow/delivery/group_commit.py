"""Group commit: the calls of many threads become one transaction, made by whichever of them comes first.

A leader commits all that waits, its own included, while those who come meanwhile wait for the lead; the next of them
commits for all of these. Under load groups grow by themselves, without load nobody waits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from telflow.delivery.log_entry import Entry, compress
from telflow.errors import TelflowError

__all__ = ["Commit", "GroupCommit", "Job"]

_GROUP_ENTRIES = 512
_GROUP_BYTES = 16 << 20


class Job:
    """Entries of one call, compressed by its thread; committed together or not at all."""

    __slots__ = ("done", "entries", "error", "future", "partition", "payloads", "position", "size")

    def __init__(
        self,
        partition: str,
        entries: Sequence[Entry],
        stored: Sequence[bytes] | None = None,
        *,
        future: Future[int] | None = None,
    ) -> None:
        self.partition = partition
        self.entries = entries
        self.payloads = stored if stored is not None else [compress(entry.payload) for entry in entries]
        self.size = sum(map(len, self.payloads))
        self.future = future
        self.position = 0
        self.error: Exception | None = None
        self.done = False

    def result(self) -> int:
        """Return the position of the last entry, or raise why there is none."""
        if self.error is not None:
            raise self.error
        return self.position


Commit = Callable[[Sequence[Job]], Exception | None]
"""Commits jobs and sets their positions; called under the lead. Returns why they are not committed, all but those whose
`error` it has set itself."""


class GroupCommit:
    """Gathers jobs and has them committed in groups.

    Attributes:
        lead: Held while a group is committed, and by others who write to the same place.
        waiting_bytes: Bytes of the jobs that are not committed yet.
    """

    def __init__(self, commit: Commit, lead: threading.Lock) -> None:
        self.lead = lead
        self.waiting_bytes = 0
        self._commit = commit
        self._door = threading.Lock()  # held for moments
        self._waiting: deque[Job] = deque()

    @property
    def crowded(self) -> bool:
        """True when more waits than one group takes."""
        return self.waiting_bytes > _GROUP_BYTES

    def enter(self, job: Job) -> None:
        """Put a job where the next leader finds it."""
        with self._door:
            self._waiting.append(job)
            self.waiting_bytes += job.size

    def work(self, job: Job | None = None) -> None:
        """Commit what waits: until `job` is done, by this thread or another; without one, until nothing waits."""
        finished: list[Job] = []
        with self.lead:
            while not job.done if job else self._waiting:
                finished += self._commit_group()
        # Outside the lock: a future's callback may append again.
        for each in finished:
            if each.future is not None:
                if each.error is not None:
                    each.future.set_exception(each.error)
                else:
                    each.future.set_result(each.position)

    def _commit_group(self) -> Sequence[Job]:
        group = self._next_group()
        error: Exception | None = TelflowError("the commit was interrupted; what the disk holds is not known")
        try:
            error = self._commit(group)
        finally:
            with self._door:
                self.waiting_bytes -= sum(job.size for job in group)
            for job in group:
                job.error = job.error or error
                job.done = True
        return group

    def _next_group(self) -> Sequence[Job]:
        group: list[Job] = []
        entries = size = 0
        with self._door:
            while self._waiting and (not group or (entries < _GROUP_ENTRIES and size < _GROUP_BYTES)):
                job = self._waiting.popleft()
                group.append(job)
                entries += len(job.entries)
                size += job.size
        return group
