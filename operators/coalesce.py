"""coalesce: many small batches into few of a useful size, per key and signal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream, StatefulBatchLogic
from pydantic import Field, field_validator
from typing_extensions import override

from telflow.batch import TelemetryBatch
from telflow.errors import BatchError
from telflow.schema import Signal
from telflow.settings import Duration, Settings

__all__ = ["CoalesceSettings", "Coalescer", "coalesce"]

_STATE_VERSION = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class CoalesceSettings(Settings):
    """When `coalesce` passes on what it has gathered: at the first of three limits."""

    max_rows: int = Field(default=8192, ge=1)
    """Records of a batch passed on, at most; larger input is split, input of at least half as many goes as it is."""

    max_bytes: int = Field(default=16 * 1024 * 1024, ge=1)
    """Bytes of Arrow data at which a batch is passed on. It exceeds this by less than its last input."""

    timeout: Duration = timedelta(milliseconds=200)
    """How long a record waits for others."""

    @field_validator("timeout")
    @classmethod
    def _positive(cls, timeout: timedelta) -> timedelta:
        if timeout <= timedelta():
            raise ValueError("expected a duration above 0")
        return timeout


@dataclass(slots=True)
class _Pending:
    """What waits of one signal."""

    deadline_unix_nano: int
    batches: list[TelemetryBatch] = field(default_factory=list)
    num_rows: int = 0
    num_bytes: int = 0

    def add(self, batch: TelemetryBatch) -> None:
        self.batches.append(batch)
        self.num_rows += batch.num_rows
        self.num_bytes += batch.num_bytes

    def joined(self) -> TelemetryBatch:
        self.batches = [TelemetryBatch.concat(self.batches)]
        return self.batches[0]


class Coalescer:
    """The batches of one key on their way to a useful size; no clock of its own.

    Records of a signal leave in the order in which they came. Batches without records vanish.

    Args:
        settings: When to pass on.
    """

    def __init__(self, settings: CoalesceSettings) -> None:
        self._settings = settings
        self._timeout_nanos = settings.timeout // timedelta(microseconds=1) * 1000
        self._pending: dict[Signal, _Pending] = {}

    def add(self, batch: TelemetryBatch, now_unix_nano: int) -> list[TelemetryBatch]:
        """Take a batch in; returns what is now large enough.

        Of two batches that follow one another, each full, both together have `max_rows` records or more. To make every
        batch equally large would mean to copy all records, which costs more than it saves in later steps.
        """
        most = self._settings.max_rows
        out = []
        for part in _parts(batch, most):
            pending = self._pending.get(part.signal)
            if pending is not None and pending.num_rows + part.num_rows > most:
                out.append(self._pending.pop(part.signal).joined())
                pending = None
            if pending is None:
                if 2 * part.num_rows >= most:
                    out.append(part)
                    continue
                pending = self._pending[part.signal] = _Pending(now_unix_nano + self._timeout_nanos)
            pending.add(part)
            if pending.num_rows >= most or pending.num_bytes >= self._settings.max_bytes:
                out.append(self._pending.pop(part.signal).joined())
        return out

    def restore(self, batch: TelemetryBatch, now_unix_nano: int) -> None:
        """Take back what `waiting` returned; it may exceed limits that are smaller now and leaves when it is due."""
        pending = self._pending[batch.signal] = _Pending(now_unix_nano + self._timeout_nanos)
        pending.add(batch)

    def due(self, now_unix_nano: int) -> list[TelemetryBatch]:
        """Return what has waited long enough."""
        late = [signal for signal, pending in self._pending.items() if pending.deadline_unix_nano <= now_unix_nano]
        return [self._pending.pop(signal).joined() for signal in late]

    def flush(self) -> list[TelemetryBatch]:
        """Return all that waits."""
        out = [pending.joined() for pending in self._pending.values()]
        self._pending.clear()
        return out

    def waiting(self) -> dict[Signal, TelemetryBatch]:
        """Return what waits of each signal, and keep it."""
        return {signal: pending.joined() for signal, pending in self._pending.items()}

    @property
    def deadline_unix_nano(self) -> int | None:
        """When something will be due; None while nothing waits."""
        return min((pending.deadline_unix_nano for pending in self._pending.values()), default=None)


def _parts(batch: TelemetryBatch, rows: int) -> list[TelemetryBatch]:
    """Cut a batch into parts of at most `rows` records, without copying; unknown fields are counted once."""
    if batch.num_rows <= rows:
        return [batch] if batch.num_rows else []
    rest = TelemetryBatch(batch.signal, batch.records, batch.resources, batch.scopes)
    return [batch.slice(0, rows), *(rest.slice(start, rows) for start in range(rows, batch.num_rows, rows))]


State = dict[str, Any]
"""`{"version": 1, "batches": [bytes, ...]}`, each of `TelemetryBatch.to_ipc_bytes`."""


class _CoalesceLogic(StatefulBatchLogic[TelemetryBatch, TelemetryBatch, State]):
    def __init__(self, settings: CoalesceSettings, clock: Callable[[], int], state: State | None) -> None:
        self._clock = clock
        self._coalescer = Coalescer(settings)
        for kept in _batches_of(state):
            self._coalescer.restore(kept, clock())

    @override
    def on_batch(self, values: list[TelemetryBatch]) -> tuple[Iterable[TelemetryBatch], bool]:
        now = self._clock()
        out = [ready for batch in values for ready in self._coalescer.add(batch, now)]
        return out, self._coalescer.deadline_unix_nano is None

    @override
    def on_notify(self) -> tuple[Iterable[TelemetryBatch], bool]:
        # Bytewax has its own clock. That it calls says that the earliest deadline has passed, whatever ours says.
        now = max(self._clock(), self._coalescer.deadline_unix_nano or 0)
        return self._coalescer.due(now), self._coalescer.deadline_unix_nano is None

    @override
    def on_eof(self) -> tuple[Iterable[TelemetryBatch], bool]:
        # Also called when a run is drained to be continued later. A window must be kept then, because closing it early
        # changes the result. Here it does not: where batches are cut carries no meaning. And nothing is lost or
        # repeated: what is emitted belongs to the run's last epoch, and so does the snapshot that says that the key
        # holds nothing any more. A crash before that epoch is committed brings back both the state and the input.
        return self._coalescer.flush(), StatefulBatchLogic.DISCARD

    @override
    def notify_at(self) -> datetime | None:
        deadline = self._coalescer.deadline_unix_nano
        return None if deadline is None else _EPOCH + timedelta(microseconds=-(-deadline // 1000))

    @override
    def snapshot(self) -> State:
        waiting = self._coalescer.waiting().values()
        return {"version": _STATE_VERSION, "batches": [batch.to_ipc_bytes() for batch in waiting]}


def _batches_of(state: State | None) -> list[TelemetryBatch]:
    if state is None:
        return []
    if state.get("version") != _STATE_VERSION:
        raise BatchError(
            f"coalesce: expected recovered state of version {_STATE_VERSION}, got {state.get('version')}: "
            "drain the flow with the telflow that wrote it before the upgrade"
        )
    return [TelemetryBatch.from_ipc_bytes(data) for data in state["batches"]]


@operator
def coalesce(
    step_id: str,  # noqa: ARG001 - Bytewax prefixes the inner steps with it
    up: KeyedStream[TelemetryBatch],
    settings: CoalesceSettings | None = None,
    clock: Callable[[], int] = time.time_ns,
) -> KeyedStream[TelemetryBatch]:
    """Gather the batches of a key until there are enough records, enough bytes, or the first has waited long enough.

    Signals are kept apart. What waits is part of the recovery state; at the end of the input it is passed on.

    Args:
        step_id: Unique ID.
        up: Keyed batches, of any size and signal.
        settings: When to pass on.
        clock: System time in Unix nanoseconds.

    Returns:
        Batches of half of `max_rows` records and more where there are so many.
    """
    chosen = settings or CoalesceSettings()

    def build(state: State | None) -> _CoalesceLogic:
        return _CoalesceLogic(chosen, clock, state)

    return op.stateful_batch("gather", up, build)
