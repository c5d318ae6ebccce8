"""Exemplars by slot: a few spans that stand for a series, drawn evenly from all of them.

Of each slot those spans stay whose ids have the smallest hashes: every span has the same chance, and which ones stay
does not depend on their order, on how they are cut into batches, or on where they were counted.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telflow.schema import RECORD_SCHEMAS, Signal

__all__ = ["ExemplarColumn", "candidates"]

Ints: TypeAlias = npt.NDArray[np.int64]
Entries: TypeAlias = npt.NDArray[np.void]

_ENTRY = np.dtype(
    [
        ("hash", "<u8"),  # 0: none
        ("time", "<i8"),
        ("value", "<f8"),
        ("trace_high", "<u8"),
        ("trace_low", "<u8"),
        ("span", "<u8"),
    ]
)
_LISTS = RECORD_SCHEMAS[Signal.METRICS].field("exemplars").type
_PENDING = 1 << 15
_ANY = np.uint64(2**64 - 1)


def candidates(
    trace_ids: pa.FixedSizeBinaryArray, span_ids: pa.FixedSizeBinaryArray, times: npt.NDArray[Any], values: Any
) -> Entries:
    """Return rows as `ExemplarColumn` takes them; one without a trace id is none.

    Args:
        trace_ids: 16 bytes each.
        span_ids: 8 bytes each; null counts as zeros.
        times: Unix nanoseconds.
        values: Numbers.
    """
    found = np.zeros(len(trace_ids), _ENTRY)
    trace = _words(trace_ids, 2)
    found["trace_high"], found["trace_low"] = trace[::2], trace[1::2]
    found["span"] = _words(span_ids, 1)
    found["time"], found["value"] = times, values
    mixed = found["trace_high"] * np.uint64(0x9E3779B97F4A7C15) ^ found["trace_low"]
    mixed = mixed * np.uint64(0xC2B2AE3D27D4EB4F) ^ found["span"]
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)  # finaliser of SplitMix64
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    known = trace_ids.is_valid().to_numpy(zero_copy_only=False)
    found["hash"] = np.where(known, np.maximum(mixed ^ (mixed >> np.uint64(31)), np.uint64(1)), np.uint64(0))
    return found


def _words(ids: pa.FixedSizeBinaryArray, width: int) -> npt.NDArray[np.uint64]:
    if ids.null_count:
        ids = ids.fill_null(bytes(8 * width))
    words = np.frombuffer(ids.buffers()[1], "<u8")
    return words[ids.offset * width : (ids.offset + len(ids)) * width]


class ExemplarColumn:
    """At most `limit` exemplars per slot."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Sorted by slot, then as `_compact` ranks them.
        self._slots = np.empty(0, np.int64)
        self._entries = np.empty(0, _ENTRY)
        # Per slot: hashes above this find no place.
        self._highest = np.empty(0, np.uint64)
        self._pending: list[tuple[Ints, Entries]] = []
        self._waiting = 0

    def grow(self, rows: int) -> None:
        """Make room for slots below `rows`."""
        more = rows - len(self._highest)
        if more > 0:
            self._highest = np.concatenate([self._highest, np.full(more, _ANY)])

    def add(self, rows: Ints, values: Entries) -> None:
        """Offer entries, of `candidates`, to the slots they belong to."""
        hashes = values["hash"]
        chosen = np.flatnonzero((hashes <= self._highest[rows]) & (hashes > 0))
        self._pending.append((rows[chosen], values[chosen]))
        self._waiting += len(chosen)
        if self._waiting > _PENDING:
            self._compact()

    def merge(self, other: ExemplarColumn, rows: Ints | None) -> None:
        """Fold in another column; its slot ``i`` goes to ``rows[i]`` (None: to ``i``)."""
        other._compact()
        self.add(other._slots if rows is None else rows[other._slots], other._entries)

    def take(self, rows: Ints) -> ExemplarColumn:
        """Return a column whose slot ``i`` is this one's ``rows[i]``; these are distinct."""
        self._compact()
        taken = ExemplarColumn(self._limit)
        taken._slots, taken._entries, taken._highest = self._slots, self._entries, self._highest
        taken.keep(rows)
        return taken

    def clear(self, rows: Ints) -> None:
        """Empty some slots."""
        self._compact()
        left = ~np.isin(self._slots, rows)
        self._slots, self._entries = self._slots[left], self._entries[left]
        self._highest[rows] = _ANY

    def renew(self) -> None:
        """Empty all slots."""
        self._slots, self._entries = self._slots[:0], self._entries[:0]
        self._highest = np.full(len(self._highest), _ANY)
        self._pending, self._waiting = [], 0

    def keep(self, rows: Ints) -> None:
        """Forget all other slots: slot ``rows[i]`` becomes ``i``."""
        self._compact()
        moved = np.full(len(self._highest), -1)
        moved[rows] = np.arange(len(rows))
        left = moved[self._slots] >= 0
        slots, entries = moved[self._slots[left]], self._entries[left]
        order = np.argsort(slots, kind="stable")
        self._slots, self._entries, self._highest = slots[order], entries[order], self._highest[rows]

    def state(self) -> dict[str, Any]:
        """Return everything as plain data that later changes do not touch."""
        self._compact()
        names = _ENTRY.names or ()
        return {
            "rows": len(self._highest),
            "slots": self._slots.copy(),
            **{name: self._entries[name].copy() for name in names},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self._entries = np.zeros(len(state["slots"]), _ENTRY)
        for name in _ENTRY.names or ():
            self._entries[name] = state[name]
        self._slots, self._highest = state["slots"].copy(), np.full(state["rows"], _ANY)
        self._pending, self._waiting = [], 0
        self._bound()

    def to_arrow(self) -> pa.Array:
        """One list of entries per slot, as bytes, for another process."""
        self._compact()
        width = _ENTRY.itemsize
        entries = pa.Array.from_buffers(
            pa.binary(width), len(self._entries), [None, pa.py_buffer(self._entries.tobytes())]
        )
        return pa.ListArray.from_arrays(pa.array(self._offsets().astype(np.int32)), entries)

    def from_arrow(self, entries: pa.Array) -> None:
        """Take over what `to_arrow` returned."""
        lengths = np.diff(entries.offsets.to_numpy())
        flat = entries.flatten()
        data = b"".join(flat.to_pylist())
        self._entries = np.frombuffer(data, _ENTRY).copy()
        self._slots = np.repeat(np.arange(len(entries)), lengths)
        self._highest = np.full(len(entries), _ANY)
        self._bound()

    def lists(self, slots: Ints, per_unit: float = 1.0) -> pa.ListArray:
        """Return the OTLP exemplars of some slots, a list for each.

        Args:
            slots: Which ones.
            per_unit: What values are divided by.
        """
        self._compact()
        offsets = self._offsets()
        counts = (offsets[1:] - offsets[:-1])[slots]
        starts = np.concatenate([[0], np.cumsum(counts)])
        rows = np.arange(starts[-1]) - np.repeat(starts[:-1], counts) + np.repeat(offsets[:-1][slots], counts)
        chosen = self._entries[rows]
        trace = np.stack([chosen["trace_high"], chosen["trace_low"]], axis=1)
        fields = list(_LISTS.value_type)
        empty = pa.ListArray.from_arrays(
            pa.array(np.zeros(len(chosen) + 1, np.int32)), pa.nulls(0, fields[0].type.value_type), type=fields[0].type
        )
        columns = {
            "filtered_attributes": empty,
            "time_unix_nano": pa.array(chosen["time"].astype(np.uint64)),
            "value_int": pa.nulls(len(chosen), pa.int64()),
            "value_double": pa.array(chosen["value"] / per_unit),
            "span_id": _ids(np.ascontiguousarray(chosen["span"]), 8),
            "trace_id": _ids(trace, 16),
        }
        structs = pa.StructArray.from_arrays([columns[field.name] for field in fields], fields=fields)
        return pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), structs, type=_LISTS)

    def _offsets(self) -> Ints:
        return np.searchsorted(self._slots, np.arange(len(self._highest) + 1))

    def _compact(self) -> None:
        """Keep the entries of the smallest hashes of each slot."""
        if not self._pending:
            return
        slots = np.concatenate([self._slots, *(rows for rows, _ in self._pending)])
        entries = np.concatenate([self._entries, *(values for _, values in self._pending)])
        self._pending, self._waiting = [], 0
        order = np.lexsort((entries["value"], entries["time"], entries["hash"], slots))
        slots, entries = slots[order], entries[order]
        begins = np.flatnonzero(np.diff(slots, prepend=-1))
        rank = np.arange(len(slots)) - np.repeat(begins, np.diff(begins, append=len(slots)))
        held = rank < self._limit
        self._slots, self._entries = slots[held], entries[held]
        self._bound()

    def _bound(self) -> None:
        offsets = self._offsets()
        full = np.flatnonzero(offsets[1:] - offsets[:-1] >= self._limit)
        self._highest[full] = self._entries["hash"][offsets[full + 1] - 1]


def _ids(words: npt.NDArray[np.uint64], width: int) -> pa.BinaryArray:
    data = words.tobytes()
    count = len(data) // width
    return pa.Array.from_buffers(pa.binary(width), count, [None, pa.py_buffer(data)]).cast(pa.binary())
