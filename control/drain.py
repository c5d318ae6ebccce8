"""Stopping a flow without losing what is in it: on SIGTERM or Ctrl-C its sources end, and the rest runs out.

Bytewax has no graceful stop of its own; a dataflow ends, with exit code 0 and its last epoch closed, when all its
sources have ended. So every source of a flow is wrapped, and a wrapped source ends when it is told to.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any

from bytewax.dataflow import Dataflow
from bytewax.inputs import (
    DynamicSource,
    FixedPartitionedSource,
    StatefulSourcePartition,
    StatelessSourcePartition,
)

from control.engine import EPOCH
from control.flow_steps import steps_of
from telflow.epoch_pace import EpochPace

__all__ = ["Drain", "close_sources", "drain_on_signal", "finish_sinks", "make_drainable", "stop_parts"]

_LOOK = timedelta(milliseconds=250)
"""How often a source that sleeps for long looks whether it is to end."""


class Drain:
    """The wish to stop, which may be expressed from a signal handler or any thread."""

    def __init__(self, *, on_request: Callable[[], None] | None = None) -> None:
        """Build one that nobody has asked for yet.

        Args:
            on_request: Called once, when the stop is asked for; must be safe in a signal handler.
        """
        self.requested = False
        self.open_parts = 0
        """How many wrapped partitions of sources have not ended; see `make_drainable`."""
        self._on_request = on_request

    def request(self) -> None:
        """Ask for the stop; asking again changes nothing."""
        if not self.requested:
            self.requested = True
            if self._on_request is not None:
                self._on_request()


@contextmanager
def drain_on_signal(drain: Drain) -> Iterator[None]:
    """Turn the first SIGTERM or SIGINT into a drain; a second SIGINT is a KeyboardInterrupt as usual.

    Outside the main thread, where Python allows no signal handlers, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if drain.requested and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        drain.request()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def make_drainable(flow: Dataflow, drain: Drain) -> None:
    """Wrap every source of `flow` so that it ends when `drain` is requested."""
    for step in steps_of(flow):
        if step.substeps:  # an operator that was given the source; the engine's own is inside it
            continue
        source = getattr(step, "source", None)
        if isinstance(source, FixedPartitionedSource):
            # Operators are frozen for flow authors; nothing has been built from this one yet.
            object.__setattr__(step, "source", _Fixed(source, drain))
        elif isinstance(source, DynamicSource):
            object.__setattr__(step, "source", _Dynamic(source, drain))


def stop_parts(flow: Dataflow) -> None:
    """Tell sources and sinks that can be told that the flow is being drained; safe in a signal handler.

    A source of its own threads (`KafkaSource`) ends, a sink (`OtlpSink`) does not wait for its destination for ever.
    """
    for part in _parts(flow):
        stop = getattr(part, "stop", None)
        if callable(stop):
            stop()


def finish_sinks(flow: Dataflow) -> None:
    """Let sinks do what they do when all epochs are committed: the archive's commits what is left to its tables."""
    for part in _parts(flow):
        finish = getattr(part, "finish", None)
        if callable(finish):
            finish()


def close_sources(flow: Dataflow) -> None:
    """Close sources that have something to do when the run has ended: Kafka's commits the last epoch's offsets."""
    for part in _parts(flow):
        close = getattr(part, "close", None)
        if callable(close) and isinstance(part, (FixedPartitionedSource, DynamicSource)):
            close()


def _parts(flow: Dataflow) -> Iterator[object]:
    for step in steps_of(flow):
        source, sink = getattr(step, "source", None), getattr(step, "sink", None)
        if source is not None and not step.substeps:
            yield source
        if sink is not None:
            yield getattr(sink, "inner", sink)


class _Pace:
    """Asks a partition only when it wants to be asked, but looks at the drain more often.

    It is quiet while its epoch has ended and those of other inputs have not.
    """

    def __init__(self, part: StatefulSourcePartition[Any, Any] | StatelessSourcePartition[Any], drain: Drain) -> None:
        self._part = part
        self._drain = drain
        self._due = part.next_awake()
        self._quiet_until: datetime | None = None
        self._drain.open_parts += 1
        self.epochs = EpochPace(EPOCH.total_seconds())

    def next_batch(self) -> Iterable[Any]:
        if self._drain.requested:
            self._drain.open_parts -= 1
            raise StopIteration
        asked = datetime.now(UTC)
        self.epochs.asked()
        items: Iterable[Any] = []
        if self._due is None or self._due <= asked:
            try:
                items = self._part.next_batch()
            except StopIteration:
                self._drain.open_parts -= 1
                raise
            self._due = self._part.next_awake()
        pause_s = self.epochs.pause_s(idle=isinstance(items, Sized) and not len(items))
        self._quiet_until = asked + timedelta(seconds=pause_s) if pause_s else None
        return items

    def next_awake(self) -> datetime | None:
        if self._quiet_until is not None and (self._due is None or self._due < self._quiet_until):
            return self._quiet_until
        return None if self._due is None else min(self._due, datetime.now(UTC) + _LOOK)


class _FixedPart(StatefulSourcePartition[Any, Any]):
    def __init__(self, part: StatefulSourcePartition[Any, Any], drain: Drain) -> None:
        self._part = part
        self._pace = _Pace(part, drain)

    def next_batch(self) -> Iterable[Any]:
        return self._pace.next_batch()

    def next_awake(self) -> datetime | None:
        return self._pace.next_awake()

    def snapshot(self) -> Any:
        self._pace.epochs.ended()
        return self._part.snapshot()

    def close(self) -> None:
        self._part.close()


class _Fixed(FixedPartitionedSource[Any, Any]):
    def __init__(self, source: FixedPartitionedSource[Any, Any], drain: Drain) -> None:
        self._source = source
        self._drain = drain

    def list_parts(self) -> list[str]:
        return self._source.list_parts()

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> _FixedPart:
        return _FixedPart(self._source.build_part(step_id, for_part, resume_state), self._drain)


class _DynamicPart(StatelessSourcePartition[Any]):
    def __init__(self, part: StatelessSourcePartition[Any], drain: Drain) -> None:
        self._part = part
        self._pace = _Pace(part, drain)

    def next_batch(self) -> Iterable[Any]:
        return self._pace.next_batch()

    def next_awake(self) -> datetime | None:
        return self._pace.next_awake()

    def close(self) -> None:
        self._part.close()


class _Dynamic(DynamicSource[Any]):
    def __init__(self, source: DynamicSource[Any], drain: Drain) -> None:
        self._source = source
        self._drain = drain

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _DynamicPart:
        return _DynamicPart(self._source.build(step_id, worker_index, worker_count), self._drain)
