"""Spans on hold: a batch as it came in, of which spans are let go as their traces are decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from telflow.accounting import Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.errors import BatchError
from telflow.sampling.span_facts import Rows
from telflow.sampling.trace_index import trace_words
from telflow.sampling.trace_state import NEVER, Words, raise_thresholds

__all__ = ["NEVER_EARLY", "NEVER_LATE", "HeldSpans"]

NEVER_EARLY = NEVER + 1
"""Verdict: dropped, its trace having been decided before it was due. A verdict below `NEVER` is the threshold with
which a span is kept."""
NEVER_LATE = NEVER + 2
"""Verdict: dropped, having come after its trace was decided."""

_STATE_VERSION = 1
_REASONS = {NEVER: "not sampled", NEVER_EARLY: "not sampled, decided early", NEVER_LATE: "not sampled, late"}


class HeldSpans:
    """The spans of a segment.

    What is let go is copied out; what stays is copied only when it is a quarter or less, or to be saved.

    Args:
        batch: The spans; row numbers are those of this batch from now on.
    """

    def __init__(self, batch: TelemetryBatch) -> None:
        self._batch = batch
        self._rows: Rows | None = None  # number of each row of the batch; None: as they stand
        self._here = np.ones(batch.num_rows, bool)
        self._saved: dict[str, Any] | None = None

    def __len__(self) -> int:
        return int(np.count_nonzero(self._here))

    def release(self, rows: Rows, verdicts: Words, step_id: str, ledger: Ledger) -> TelemetryBatch | None:
        """Let spans go; return those that are kept, with their thresholds in `trace_state`, or None.

        Args:
            rows: Row numbers.
            verdicts: One for each.
            step_id: Who says so.
            ledger: Where dropped spans are counted.

        Raises:
            BatchError: A span is not here.
        """
        places = self._places(rows)
        self._saved = None
        self._here[places] = False
        kept = self._kept(places, verdicts, step_id, ledger)
        left = np.flatnonzero(self._here)
        if left.size and 4 * len(left) <= self._batch.num_rows:
            self._shrink(left)
        return kept

    def take(self, rows: Rows) -> TelemetryBatch:
        """Return spans, which stay here, by their row numbers."""
        return self._batch.take(self._places(rows))

    def state(self) -> dict[str, Any]:
        """Return the spans that are here, and nothing of the others, as plain data; made once until some go."""
        if self._saved is not None:
            return self._saved
        if not self._here.all():
            self._shrink(np.flatnonzero(self._here))
        rows = np.arange(len(self._here), dtype=np.uint32) if self._rows is None else self._rows
        self._saved = {"version": _STATE_VERSION, "spans": self._batch.to_ipc_bytes("lz4"), "rows": rows}
        return self._saved

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> HeldSpans:
        """Take over what `state` returned.

        Raises:
            BatchError: `state` is of a version this one cannot read.
        """
        if state.get("version") != _STATE_VERSION:
            raise BatchError(
                f"tail_sampling: expected recovered spans of version {_STATE_VERSION}, got {state.get('version')}: "
                "drain the flow with the telflow that wrote it before the upgrade"
            )
        held = cls(TelemetryBatch.from_ipc_bytes(state["spans"]))
        held._rows = state["rows"]
        return held

    def _places(self, rows: Rows) -> npt.NDArray[np.int64]:
        if self._rows is None:
            places = rows.astype(np.int64)
            known = places < len(self._here)
        else:
            places = np.searchsorted(self._rows, rows)
            known = places < len(self._rows)
            known[known] = self._rows[places[known]] == rows[known]
        if not known.all() or not self._here[places].all():
            raise BatchError("tail_sampling: asked for spans that are not held here")
        return places

    def _shrink(self, left: npt.NDArray[np.int64]) -> None:
        self._rows = left.astype(np.uint32) if self._rows is None else self._rows[left]
        self._batch = self._batch.take(left).compact()
        self._here = np.ones(len(left), bool)

    def _kept(
        self, places: npt.NDArray[np.int64], verdicts: Words, step_id: str, ledger: Ledger
    ) -> TelemetryBatch | None:
        for verdict, reason in _REASONS.items():
            for tenant, count in self._count_by_tenant(places[verdicts == verdict]).items():
                ledger.add(Outcome.DROPPED, self._batch.signal, tenant, count, component=step_id, reason=reason)
        # By place in the batch: that is their order, without sorting.
        by_place = np.full(self._batch.num_rows, NEVER, np.uint64)
        by_place[places] = verdicts
        kept = np.flatnonzero(by_place < NEVER)
        if not kept.size:
            return None
        some = self._batch.take(kept).compact()
        before = some.records["trace_state"]
        after = raise_thresholds(before, trace_words(some.records["trace_id"])[1], by_place[kept])
        return some if after is before else some.with_column("trace_state", after)

    def _count_by_tenant(self, places: npt.NDArray[np.int64]) -> dict[str, int]:
        # Needs the resource of each span, not the span.
        if not places.size:
            return {}
        resources = self._batch.places("resource")[places]
        per_resource = np.bincount(resources, minlength=self._batch.resources.num_rows).tolist()
        counts: dict[str, int] = {}
        for tenant, count in zip(self._batch.resources["tenant"].to_pylist(), per_resource, strict=True):
            counts[tenant or ""] = counts.get(tenant or "", 0) + count
        return counts
