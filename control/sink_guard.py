"""Lets a sink fail without taking the process down: Bytewax aborts it when a sink raises while it is being closed.

The engine closes every partition of a sink when anything raises, and when a run ends. An exception from `close` is
then raised inside a destructor: the process is aborted, and the first error, the one that matters, is never told. So
partitions are wrapped: one that has failed is closed in silence, what `close` raises is kept for the end of the run,
and the step is named, which the engine does not do for sinks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, FixedPartitionedSink, StatefulSinkPartition, StatelessSinkPartition

from control.epochs import Epochs
from control.flow_steps import steps_of

__all__ = ["CloseErrors", "SinkFailed", "guard_sinks"]

_LOG = logging.getLogger(__name__)


class CloseErrors:
    """What sinks raised when they were closed."""

    def __init__(self) -> None:
        self._errors: list[tuple[str, Exception]] = []

    def add(self, step_id: str, error: Exception) -> None:
        """Keep an error."""
        _LOG.error("%s: failed while closing: %s", step_id, type(error).__name__)
        self._errors.append((step_id, error))

    def raise_first(self) -> None:
        """Raise the first one, if there is any, with its step in a note."""
        if self._errors:
            step_id, error = self._errors[0]
            raise SinkFailed(f'error closing the sink in step "{step_id}"') from error


class SinkFailed(RuntimeError):  # noqa: N818 - reads as what happened
    """A sink raised; the cause is what it raised, the message names the step."""


def guard_sinks(flow: Dataflow, epochs: Epochs | None = None) -> CloseErrors:
    """Wrap every sink of `flow`; the result tells what closing them raised, `epochs` when they were flushed."""
    errors = CloseErrors()
    for step in steps_of(flow):
        sink = getattr(step, "sink", None)
        if step.substeps or isinstance(sink, (_Fixed, _Dynamic)):
            continue  # an operator of telflow's or the user's that was given the sink; the engine's own is inside it
        if isinstance(sink, FixedPartitionedSink):
            object.__setattr__(step, "sink", _Fixed(sink, errors, epochs))
        elif isinstance(sink, DynamicSink):
            object.__setattr__(step, "sink", _Dynamic(sink, errors))
    return errors


class _Guard:
    """Calls a partition's methods and remembers whether one has raised."""

    def __init__(self, step_id: str, part: Any, errors: CloseErrors, epochs: Epochs | None = None) -> None:
        self._step_id = step_id
        self._epochs = epochs
        self._part = part
        self._errors = errors
        self._failed = False

    def write_batch(self, items: Sequence[Any]) -> None:
        try:
            self._part.write_batch(items)
        except Exception as error:
            self._failed = True
            raise SinkFailed(f'error writing in step "{self._step_id}"') from error

    def snapshot(self) -> Any:
        started_s = time.monotonic()
        try:
            state = self._part.snapshot()
        except Exception as error:
            self._failed = True
            raise SinkFailed(f'error flushing in step "{self._step_id}"') from error
        if self._epochs is not None:
            self._epochs.flushed(self._step_id, time.monotonic() - started_s)
        return state

    def close(self) -> None:
        try:
            self._part.close()
        except Exception as error:  # noqa: BLE001 - raised once the engine has let go
            if not self._failed:
                self._errors.add(self._step_id, error)


class _FixedPart(StatefulSinkPartition[Any, Any]):
    def __init__(self, guard: _Guard) -> None:
        self._guard = guard

    def write_batch(self, values: list[Any]) -> None:
        self._guard.write_batch(values)

    def snapshot(self) -> Any:
        return self._guard.snapshot()

    def close(self) -> None:
        self._guard.close()


class _Fixed(FixedPartitionedSink[Any, Any]):
    def __init__(self, sink: FixedPartitionedSink[Any, Any], errors: CloseErrors, epochs: Epochs | None) -> None:
        self.inner = sink
        self._errors = errors
        self._epochs = epochs

    def list_parts(self) -> list[str]:
        return self.inner.list_parts()

    def part_fn(self, item_key: str) -> int:
        return self.inner.part_fn(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> _FixedPart:
        part = self.inner.build_part(step_id, for_part, resume_state)
        return _FixedPart(_Guard(step_id, part, self._errors, self._epochs))


class _DynamicPart(StatelessSinkPartition[Any]):
    def __init__(self, guard: _Guard) -> None:
        self._guard = guard

    def write_batch(self, items: list[Any]) -> None:
        self._guard.write_batch(items)

    def close(self) -> None:
        self._guard.close()


class _Dynamic(DynamicSink[Any]):
    def __init__(self, sink: DynamicSink[Any], errors: CloseErrors) -> None:
        self.inner = sink
        self._errors = errors

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _DynamicPart:
        return _DynamicPart(_Guard(step_id, self.inner.build(step_id, worker_index, worker_count), self._errors))
