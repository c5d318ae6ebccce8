"""What a tail sampler needs to know of spans: some forty bytes each, which travel instead of the spans themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from telflow.batch import TelemetryBatch
from telflow.sampling.predicates import Predicates
from telflow.sampling.trace_index import shards_of_words, trace_words
from telflow.sampling.trace_state import UNKNOWN, Words, read_trace_state

__all__ = ["Rows", "SpanFacts"]

Rows = npt.NDArray[np.uint32]

_COLUMNS = ("rows", "high", "low", "tenant", "start", "end", "root", "bits")


@dataclass(frozen=True, slots=True)
class SpanFacts:
    """Facts about spans of one segment; the arrays have one value per span.

    Attributes:
        segment: Where the spans are held.
        num_bytes: About how much memory they take there.
        tenants: The tenants among them.
        rows: Row numbers of the spans in their segment (uint32).
        high: First eight bytes of the trace id (uint64).
        low: Last eight bytes of it (uint64).
        tenant: Place in `tenants` (int64).
        start: Start, Unix nanoseconds (uint64).
        end: End, Unix nanoseconds (uint64).
        root: Whether it has no parent (bool).
        bits: Which predicates are true of it (uint64).
        explicit: Randomness that its trace state gives (uint64); None when none of them does.
    """

    segment: str
    num_bytes: int
    tenants: tuple[str | None, ...]
    rows: Rows
    high: Words
    low: Words
    tenant: npt.NDArray[np.int64]
    start: Words
    end: Words
    root: npt.NDArray[np.bool_]
    bits: Words
    explicit: Words | None

    @classmethod
    def of(cls, batch: TelemetryBatch, segment: str, predicates: Predicates) -> Self:
        """Return the facts about spans that all have a trace id.

        Args:
            batch: Spans.
            segment: Names the segment they make up.
            predicates: What to remember of them.
        """
        records = batch.records
        high, low = trace_words(records["trace_id"])
        names = batch.resources["tenant"].to_pylist()
        tenants = tuple(dict.fromkeys(names))
        numbers = np.array([tenants.index(name) for name in names], np.int64)
        explicit = read_trace_state(records["trace_state"])[1]
        parents = records["parent_span_id"]
        return cls(
            segment=segment,
            num_bytes=batch.num_bytes,
            tenants=tenants,
            rows=np.arange(batch.num_rows, dtype=np.uint32),
            high=high,
            low=low,
            tenant=numbers[batch.places("resource")],
            start=records["start_time_unix_nano"].to_numpy(),
            end=records["end_time_unix_nano"].to_numpy(),
            root=parents.is_null().to_numpy(zero_copy_only=False),
            bits=predicates.bits(batch),
            explicit=explicit if (explicit != UNKNOWN).any() else None,
        )

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, rows: npt.NDArray[np.integer[Any]] | slice) -> SpanFacts:
        """Return the facts about some of the spans."""
        columns = {name: getattr(self, name)[rows] for name in _COLUMNS}
        share = self.num_bytes * len(columns["rows"]) // max(1, len(self))
        explicit = None if self.explicit is None else self.explicit[rows]
        return SpanFacts(segment=self.segment, num_bytes=share, tenants=self.tenants, explicit=explicit, **columns)

    def split(self, shards: int) -> list[tuple[int, SpanFacts]]:
        """Return the facts by part of all traces, for each part that has any."""
        shard = shards_of_words(self.high, self.low, shards)
        counts = np.bincount(shard, minlength=shards).tolist()
        ordered = self.at(np.argsort(shard, kind="stable"))
        parts, start = [], 0
        for number, count in enumerate(counts):
            if count:
                parts.append((number, ordered.at(slice(start, start + count))))
                start += count
        return parts

    def state(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {column.name: getattr(self, column.name) for column in fields(self)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Take over what `state` returned."""
        return cls(**state)
