"""The engine's side of a conversion of metrics: batches, snapshots and accounting, per key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import bytewax.operators as op
from bytewax.dataflow import Stream
from bytewax.operators import StatefulBatchLogic
from typing_extensions import override

from telflow.accounting import Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.metric_streams.selection import Converted

__all__ = ["ConversionKernel", "Split", "convert_streams"]

Split = Callable[[TelemetryBatch], tuple[TelemetryBatch | None, list[tuple[str, TelemetryBatch]]]]
"""Divides a batch: what passes by, and what is worked on by key."""

_PASSED = "passed"


class ConversionKernel(Protocol):
    """A conversion of the points of one key, without clock and I/O."""

    def __len__(self) -> int:
        """Streams in memory."""

    def add(self, batch: TelemetryBatch, now_unix_nano: int) -> Converted:
        """Convert a batch."""

    def state(self) -> dict[str, Any]:
        """Everything as plain, versioned data that later changes do not touch."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""


class _Logic(StatefulBatchLogic[TelemetryBatch, TelemetryBatch, dict[str, Any]]):
    def __init__(
        self,
        step_id: str,
        kernel: ConversionKernel,
        state: dict[str, Any] | None,
        clock: Callable[[], int],
        ledger: Ledger,
    ) -> None:
        self._step_id = step_id
        self._kernel = kernel
        self._clock = clock
        self._ledger = ledger
        if state is not None:
            kernel.restore(state)

    @override
    def on_batch(self, values: list[TelemetryBatch]) -> tuple[Iterable[TelemetryBatch], bool]:
        out = []
        for batch in values:
            found = self._kernel.add(batch, self._clock())
            for gone, reason in found.dropped:
                self._ledger.add_batch(Outcome.DROPPED, gone, component=self._step_id, reason=reason)
            if found.batch is not None:
                out.append(found.batch)
        return out, self.RETAIN

    @override
    def snapshot(self) -> dict[str, Any]:
        return self._kernel.state()


def convert_streams(
    step_id: str,
    up: Stream[TelemetryBatch],
    split: Split,
    kernel: Callable[[], ConversionKernel],
    *,
    clock: Callable[[], int],
    ledger: Ledger,
) -> Stream[TelemetryBatch]:
    """Run a kernel on the points of each key, and let the rest pass; to be called inside of an operator.

    Args:
        step_id: Of that operator, for the ledger.
        up: Batches of any signal.
        split: See `Split`.
        kernel: Makes a fresh one.
        clock: System time in Unix nanoseconds.
        ledger: Where dropped points are counted.

    Returns:
        What passed, and what the kernels made.
    """

    def divide(batch: TelemetryBatch) -> list[tuple[str, TelemetryBatch]]:
        rest, parts = split(batch)
        return parts if rest is None else [(f"/{_PASSED}", rest), *parts]

    def build(state: dict[str, Any] | None) -> _Logic:
        return _Logic(step_id, kernel(), state, clock, ledger)

    divided = op.branch("divided", op.flat_map("split", up, divide), lambda item: item[0] != f"/{_PASSED}")
    converted = op.stateful_batch("convert", divided.trues, build)
    return op.merge("out", op.key_rm("converted", converted), op.key_rm("passed", divided.falses))
