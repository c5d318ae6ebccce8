"""Who is lost: decided from life signs and a clock alone."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Loss", "Member", "blame", "judge"]


@dataclass(slots=True)
class Member:
    """A worker as the supervisor knows it.

    Attributes:
        index: Its number.
        node: Its host.
        address: Where it listens for the others.
        pid: Its process id there.
        ready: It has loaded its flow.
        heard_s: When it last said anything, on the supervisor's clock.
        beat: Its last life sign.
        ended: What it said at its end.
        status: Its exit status, once it has ended.
    """

    index: int
    node: str
    address: str
    heard_s: float
    pid: int = 0
    ready: bool = False
    beat: dict[str, Any] = field(default_factory=dict)
    ended: dict[str, Any] = field(default_factory=dict)
    status: int | None = None

    @property
    def runs(self) -> bool:
        """Its dataflow has begun."""
        return self.beat.get("progress_age_s") is not None

    @property
    def lost_records(self) -> int:
        """Records that it has counted as dropped, quarantined or throttled, as far as is known."""
        if "losses" in self.ended:
            return sum(row["records"] for row in self.ended["losses"])
        counts = self.beat.get("counts", {})
        return sum(counts.get(name, 0) for name in ("dropped", "quarantined", "throttled"))

    @property
    def state(self) -> str:
        """In a word, for people."""
        if self.status is not None:
            return "ended"
        return "running" if self.runs else "ready" if self.ready else "starting"


@dataclass(frozen=True, slots=True)
class Loss:
    """Why the workers cannot go on.

    Attributes:
        worker: Which one is at fault; None when that is not known.
        reason: What is wrong, in a few words.
        code: The exit code it gave, for an error of its own.
    """

    worker: int | None
    reason: str
    code: int = 0

    def __str__(self) -> str:
        """Say it for people."""
        return self.reason if self.worker is None else f"worker {self.worker} {self.reason}"


def judge(
    members: Iterable[Member], now_s: float, *, silence_s: float, hang_s: float, draining: bool = False
) -> Loss | None:
    """Find a worker that is stopped or hangs.

    Args:
        members: All workers.
        now_s: The supervisor's clock.
        silence_s: How long a worker may say nothing.
        hang_s: How long one call of the flow may take; and how long, when no call takes that long, no worker's dataflow
            may go round.
        draining: A drain has been asked for: input has ended, so that nothing goes round any more.
    """
    alive = [member for member in members if member.status is None]
    for member in alive:
        if member.beat and now_s - member.heard_s > silence_s:
            silent_s = now_s - member.heard_s
            return Loss(member.index, f"has been silent for {silent_s:.1f} s: stopped, or its host is gone")
    if draining:
        return None
    running = [member for member in alive if member.runs]
    for member in running:
        call_s, where = member.beat["call_s"], member.beat["where"]
        if call_s > hang_s:
            return Loss(member.index, f"hangs: one call takes {call_s:.1f} s, in {where}")
    # One alone may wait for the others, whose calls are looked at; when none goes round, all wait for each other.
    if running and min(member.beat["progress_age_s"] for member in running) > 2 * hang_s:
        return Loss(None, f"no worker's dataflow has gone round for {2 * hang_s:.0f} s")
    return None


def blame(members: Iterable[Member]) -> Loss:
    """Say which of the workers that ended took the others with it.

    When one process ends, the engine of each other one panics. So what a signal ended comes first, then an error that
    a worker tells of itself, then whoever is left.
    """
    ended = [member for member in members if member.status is not None]
    for member in ended:
        if member.status is not None and member.status < 0:
            return Loss(member.index, f"was ended by {signal.Signals(-member.status).name}")
    told = sorted(ended, key=lambda member: _panicked(member.ended.get("error", "")))
    for member in told:
        if member.ended.get("error"):
            return Loss(member.index, f"failed: {member.ended['error']}", int(member.ended["code"]))
    for member in ended:
        if member.status:
            return Loss(member.index, f"ended with exit code {member.status}", member.status)
    return Loss(None, "a worker ended early")


def _panicked(error: str) -> bool:
    return "panic" in error.lower()
