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

    __slots__ = ("done", "entries", "error", "future", "leads", "partition", "payloads", "position", "size", "turn")

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
        self.leads = False
        self.turn = threading.Lock()  # released when the job is done, or its thread is to lead
        self.turn.acquire()

    def finish(self) -> None:
        """Wake whoever waits for it."""
        if self.future is None:
            self.turn.release()
        elif self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.position)

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

    Whoever waits is woken for one of two reasons: its job is done, or it is to lead. Nobody has to take the lead only
    to learn that there is nothing left to do, which would hold up those who are done behind the next commits.

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
        self._led = False

    @property
    def crowded(self) -> bool:
        """True when more waits than one group takes."""
        return self.waiting_bytes > _GROUP_BYTES

    def submit(self, job: Job) -> None:
        """Have a job committed by this thread or another, and wait until it is done."""
        with self._door:
            self._put(job)
            job.leads = not self._led
            self._led = True
        if not job.leads:
            job.turn.acquire()
        if job.leads:
            self._lead_groups(job)

    def submit_soon(self, job: Job) -> None:
        """Have a job with a future committed by whoever leads next, or calls `work`."""
        with self._door:
            self._put(job)

    def work(self) -> None:
        """Commit what waits, unless somebody is at it."""
        with self._door:
            if self._led or not self._waiting:
                return
            self._led = True
        self._lead_groups(None)

    def _put(self, job: Job) -> None:
        self._waiting.append(job)
        self.waiting_bytes += job.size

    def _lead_groups(self, mine: Job | None) -> None:
        """Commit a group, and further ones as long as nobody waits who could lead; then pass the lead on."""
        finished: list[Job] = []
        passed_on = False
        try:
            while not passed_on:
                with self.lead:
                    group = self._next_group()
                    finished += group
                    self._commit_group(group)
                passed_on = (mine is None or mine.done) and self._pass_on()
        finally:
            if not passed_on and not self._pass_on():
                self._led = False  # an interrupt; what has a future waits for `work`
            for job in finished:
                job.finish()

    def _pass_on(self) -> bool:
        """Make the first thread that waits the leader, or nobody if nothing waits; False: only futures wait."""
        with self._door:
            following = next((job for job in self._waiting if job.future is None), None)
            if following is None and self._waiting:
                return False
            self._led = following is not None
        if following is not None:
            following.leads = True
            following.turn.release()
        return True

    def _commit_group(self, group: Sequence[Job]) -> None:
        error: Exception | None = TelflowError("the commit was interrupted; what the disk holds is not known")
        try:
            error = self._commit(group)
        finally:
            with self._door:
                self.waiting_bytes -= sum(job.size for job in group)
            for job in group:
                job.error = job.error or error
                job.done = True

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
