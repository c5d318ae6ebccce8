"""`TelemetryBatch`: the one thing that flows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from telflow.errors import BatchError
from telflow.schema import RECORD_SCHEMAS, RESOURCES, SCOPES, Signal

__all__ = ["TelemetryBatch"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TelemetryBatch:
    """One signal's records with the resources and scopes they belong to (columns: `telflow.schema`).

    Immutable: every method returns a new batch that shares what did not change.

    Attributes:
        signal: What the records are.
        records: One row per span, log record or metric data point; schema `RECORD_SCHEMAS[signal]`.
        resources: One row per distinct resource; `records["resource"]` holds row numbers into it.
        scopes: One row per distinct instrumentation scope; `records["scope"]` holds row numbers into it.
        unknown_fields: Protobuf or JSON fields this version does not know, skipped while decoding.
    """

    signal: Signal
    records: pa.RecordBatch
    resources: pa.RecordBatch
    scopes: pa.RecordBatch
    unknown_fields: int = 0

    def __post_init__(self) -> None:
        _check_schema("records", self.records, RECORD_SCHEMAS[self.signal])
        _check_schema("resources", self.resources, RESOURCES)
        _check_schema("scopes", self.scopes, SCOPES)
        _check_places(self.records, "resource", self.resources.num_rows)
        _check_places(self.records, "scope", self.scopes.num_rows)

    @classmethod
    def empty(cls, signal: Signal) -> TelemetryBatch:
        """Return a batch without rows."""
        return cls(
            signal,
            pa.RecordBatch.from_pylist([], schema=RECORD_SCHEMAS[signal]),
            pa.RecordBatch.from_pylist([], schema=RESOURCES),
            pa.RecordBatch.from_pylist([], schema=SCOPES),
        )

    @property
    def num_rows(self) -> int:
        """Number of records."""
        return int(self.records.num_rows)

    @property
    def num_bytes(self) -> int:
        """Bytes of Arrow data the batch's rows occupy; a slice counts only its own part."""
        return int(self.records.nbytes + self.resources.nbytes + self.scopes.nbytes)

    def with_records(self, records: pa.RecordBatch) -> TelemetryBatch:
        """Return the batch with other records over the same resources and scopes.

        Raises:
            BatchError: The records do not fit the signal's schema.
        """
        return TelemetryBatch(self.signal, records, self.resources, self.scopes, self.unknown_fields)

    def filter(self, mask: pa.BooleanArray) -> TelemetryBatch:
        """Keep the records for which `mask` is true; null counts as false."""
        return self.with_records(self.records.filter(mask))

    def take(self, indices: pa.Array) -> TelemetryBatch:
        """Return the records at `indices`, in that order."""
        return self.with_records(self.records.take(indices))

    def slice(self, offset: int, length: int | None = None) -> TelemetryBatch:
        """Return `length` records from `offset` without copying; everything after `offset` when None."""
        return self.with_records(self.records.slice(offset, length))

    @staticmethod
    def concat(batches: Sequence[TelemetryBatch]) -> TelemetryBatch:
        """Return the records of all batches, in order, as one batch.

        Raises:
            BatchError: `batches` is empty or holds more than one signal.
        """
        if not batches:
            raise BatchError("concat: expected at least one batch, got none")
        signal = batches[0].signal
        others = {b.signal for b in batches} - {signal}
        if others:
            raise BatchError(f"concat: expected only {signal} batches, got {', '.join(sorted(others))} too")
        if len(batches) == 1:
            return batches[0]
        resource_base = np.cumsum([0, *(b.resources.num_rows for b in batches)])
        scope_base = np.cumsum([0, *(b.scopes.num_rows for b in batches)])
        moved = [
            b.records.set_column(0, "resource", pc.add(b.records["resource"], pa.scalar(int(r), pa.uint32())))
            .set_column(1, "scope", pc.add(b.records["scope"], pa.scalar(int(s), pa.uint32())))
            .cast(RECORD_SCHEMAS[signal])
            for b, r, s in zip(batches, resource_base, scope_base, strict=False)
        ]
        return TelemetryBatch(
            signal,
            pa.concat_batches(moved),
            pa.concat_batches([b.resources for b in batches]),
            pa.concat_batches([b.scopes for b in batches]),
            sum(b.unknown_fields for b in batches),
        )


def _check_schema(table: str, got: pa.RecordBatch, expected: pa.Schema) -> None:
    if got.schema.equals(expected):
        return
    for i, field in enumerate(expected):
        have = got.schema.field(i) if i < len(got.schema) else None
        if have is None or not have.equals(field):
            raise BatchError(f"{table}: column {i}: expected {field}, got {have}")
    raise BatchError(f"{table}: expected {len(expected)} columns, got {len(got.schema)}")


def _check_places(records: pa.RecordBatch, column: str, rows: int) -> None:
    if not records.num_rows:
        return
    highest = pc.max(records[column]).as_py()
    if highest is None or records[column].null_count or highest >= rows:
        raise BatchError(f"records: column {column}: expected row numbers below {rows}, got {highest}")
