"""The engine's side of an operator with event-time windows: batches, timers, snapshots and accounting, per key.

What is counted, and how, is a kernel's business (`WindowKernel`); this is the same for all of them. It is also the one
place where the system clock is read: time of day enters a kernel as an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import pyarrow as pa
from bytewax.operators import StatefulBatchLogic
from typing_extensions import override

from telflow.accounting import Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.schema import Signal

__all__ = ["Refused", "Update", "WindowKernel", "WindowLogic", "account_refused"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STALL_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Refused:
    """Records that do not count.

    Attributes:
        signal: What they are.
        tenant: Whose.
        count: How many.
        reason: Why, as the ledger has it.
    """

    signal: Signal
    tenant: str | None
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Update:
    """What a step of a kernel gave.

    Attributes:
        metrics: One batch per window that closed, oldest first.
        late: Records whose window was closed already, or None.
        ahead: Records too far ahead of the clock to be believed, or None.
        rows: Results that are no telemetry yet.
        refused: Records that do not count and are not here any more.
    """

    metrics: tuple[TelemetryBatch, ...] = ()
    late: TelemetryBatch | None = None
    ahead: TelemetryBatch | None = None
    rows: tuple[pa.RecordBatch, ...] = ()
    refused: tuple[Refused, ...] = ()


def account_refused(refused: Iterable[Refused], step_id: str, ledger: Ledger) -> None:
    """Count records that a step has taken a copy of and does not use: the records themselves go on elsewhere."""
    for found in refused:
        for outcome in (Outcome.DERIVED, Outcome.DROPPED):
            ledger.add(outcome, found.signal, found.tenant, found.count, component=step_id, reason=found.reason)


_In_contra = TypeVar("_In_contra", contravariant=True)
_In = TypeVar("_In")
_Out: TypeAlias = TelemetryBatch | pa.RecordBatch


class WindowKernel(Protocol[_In_contra]):
    """Windows of one key, without clock and I/O; times are Unix nanoseconds."""

    def add(self, batch: _In_contra, /, now_unix_nano: int) -> Update:
        """Count a batch."""

    def due_unix_nano(self) -> int | None:
        """System time at which `advance` closes a window if nothing comes until then; None: not at all."""

    def idle_since(self, system_unix_nano: int) -> None:
        """Say that silence only counts from this moment."""

    def advance(self, now_unix_nano: int) -> Update:
        """Let the system clock close windows, the input being silent."""

    def flush(self) -> Update:
        """Close all open windows."""

    def state(self) -> dict[str, Any]:
        """Everything as plain, versioned data that later changes do not touch."""

    def restore(self, state: Mapping[str, Any]) -> Update:
        """Take over what `state` returned; gives what cannot go on."""


class WindowLogic(StatefulBatchLogic[_In, _Out, dict[str, Any]], Generic[_In]):
    """Runs a kernel in `bytewax.operators.stateful_batch`.

    Emits results of windows and the refused records in one stream; they differ by their signal or type.

    Args:
        step_id: Of the operator, for the ledger.
        kernel: A fresh one.
        state: What an earlier `snapshot` returned, or None.
        emit_on_eof: Whether the end of the input closes all windows. Otherwise they are kept, for the run that resumes.
        clock: System time in Unix nanoseconds.
        ledger: Where outcomes are counted.
    """

    def __init__(
        self,
        step_id: str,
        kernel: WindowKernel[_In],
        state: dict[str, Any] | None,
        *,
        emit_on_eof: bool,
        clock: Callable[[], int],
        ledger: Ledger,
    ) -> None:
        self._step_id = step_id
        self._kernel = kernel
        self._emit_on_eof = emit_on_eof
        self._clock = clock
        self._ledger = ledger
        self._restored: list[_Out] = []
        if state is not None:
            self._restored = self._account(kernel.restore(state))
            kernel.idle_since(clock())

    @override
    def on_batch(self, values: list[_In]) -> tuple[Iterable[_Out], bool]:
        out = self._take_restored()
        for batch in values:
            out += self._account(self._kernel.add(batch, self._clock()))
        return out, self.RETAIN

    @override
    def notify_at(self) -> datetime | None:
        due = self._clock() if self._restored else self._kernel.due_unix_nano()
        return None if due is None else _EPOCH + timedelta(microseconds=-(-due // 1000))

    @override
    def on_notify(self) -> tuple[Iterable[_Out], bool]:
        out = self._take_restored()
        now, due = self._clock(), self._kernel.due_unix_nano()
        if due is not None and now >= due + _STALL_NANO:
            # This worker stood still, and what came meanwhile waits in front of it: that is not silence.
            self._kernel.idle_since(now)
        elif due is not None and now >= due:
            out += self._account(self._kernel.advance(now))
        return out, self.RETAIN

    @override
    def on_eof(self) -> tuple[Iterable[_Out], bool]:
        out = self._take_restored()
        if self._emit_on_eof:
            out += self._account(self._kernel.flush())
        return out, self.RETAIN

    @override
    def snapshot(self) -> dict[str, Any]:
        return self._kernel.state()

    def _take_restored(self) -> list[_Out]:
        out, self._restored = self._restored, []
        return out

    def _account(self, update: Update) -> list[_Out]:
        refused = [(update.late, "late"), (update.ahead, "ahead of clock")]
        for batch, reason in refused:
            if batch is not None:
                # The records themselves go on elsewhere; what ends here is this step's copy of them.
                self._ledger.add_batch(Outcome.DERIVED, batch, component=self._step_id, reason=reason)
                self._ledger.add_batch(Outcome.DROPPED, batch, component=self._step_id, reason=reason)
        for batch in update.metrics:
            self._ledger.add_batch(Outcome.DERIVED, batch, component=self._step_id)
        account_refused(update.refused, self._step_id, self._ledger)
        return [*(batch for batch, _ in refused if batch is not None), *update.metrics, *update.rows]
