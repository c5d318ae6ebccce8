"""`TelemetryBatch`: the one thing that flows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telflow import attributes as attribute_columns
from telflow import frames, rows, wire
from telflow.attributes import AttributeValue, PutMode
from telflow.errors import BatchError, nearest
from telflow.preview import preview
from telflow.schema import RECORD_SCHEMAS, RESOURCES, SCOPES, Signal

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Level", "TelemetryBatch"]

Level = Literal["record", "resource", "scope"]
"""Which of a batch's tables: its records, their resources, their scopes."""

_NO_ROWS = {signal: pa.RecordBatch.from_pylist([], schema=schema) for signal, schema in RECORD_SCHEMAS.items()}
_NO_RESOURCES = pa.RecordBatch.from_pylist([], schema=RESOURCES)
_NO_SCOPES = pa.RecordBatch.from_pylist([], schema=SCOPES)
_FIELDS = ("signal", "records", "resources", "scopes", "unknown_fields", "_num_bytes", "_is_whole")
_PLACES: dict[Literal["resource", "scope"], int] = {"resource": 0, "scope": 1}
"""Columns of `records` that hold row numbers into the other tables."""


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class TelemetryBatch:
    """One signal's records with the resources and scopes they belong to (columns: `telflow.schema`).

    Immutable: every method returns a new batch that shares what did not change. Two batches are equal when they hold
    the same records in the same order, with resources and scopes of the same content, however those are numbered;
    NaN equals NaN, -0.0 is not 0.0. `unknown_fields` is bookkeeping and not compared.

    Attributes:
        signal: What the records are.
        records: One row per span, log record or metric data point; schema `RECORD_SCHEMAS[signal]`.
        resources: One row per distinct resource; `records["resource"]` holds row numbers into it.
        scopes: One row per distinct instrumentation scope; `records["scope"]` holds row numbers into it.
        unknown_fields: Protobuf or JSON fields this version does not know, skipped while decoding.

    Raises:
        BatchError: A table does not have its schema, or a record refers to a resource or scope that is not there.
    """

    signal: Signal
    records: pa.RecordBatch
    resources: pa.RecordBatch
    scopes: pa.RecordBatch
    unknown_fields: int = 0
    _num_bytes: int | None = field(default=None, init=False)
    _is_whole: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "signal", Signal(self.signal))
        _check_schema("records", self.records, RECORD_SCHEMAS[self.signal])
        _check_schema("resources", self.resources, RESOURCES)
        _check_schema("scopes", self.scopes, SCOPES)
        _check_places(self.records, "resource", self.resources.num_rows)
        _check_places(self.records, "scope", self.scopes.num_rows)

    @classmethod
    def empty(cls, signal: Signal) -> TelemetryBatch:
        """Return a batch without rows."""
        return cls(signal, _NO_ROWS[signal], _NO_RESOURCES, _NO_SCOPES)

    @classmethod
    def decoded(
        cls, signal: Signal, records: pa.RecordBatch, resources: pa.RecordBatch, scopes: pa.RecordBatch, unknown: int
    ) -> TelemetryBatch:
        """Return a batch of tables that native code has just made; see `is_whole`.

        Nothing is checked: that would take as long as reading fifty records, which matters to small requests.
        """
        batch = object.__new__(cls)
        for name, value in zip(_FIELDS, (Signal(signal), records, resources, scopes, unknown, None, True), strict=True):
            object.__setattr__(batch, name, value)
        return batch

    @property
    def is_whole(self) -> bool:
        """True when the tables are known to hold their rows and nothing else: they are no views of larger ones."""
        return self._is_whole

    @property
    def num_rows(self) -> int:
        """Number of records."""
        return int(self.records.num_rows)

    def __len__(self) -> int:
        return self.num_rows

    def __bool__(self) -> bool:
        return True  # a batch without records is still a batch

    @property
    def num_bytes(self) -> int:
        """Bytes of Arrow data the batch's rows occupy; a slice counts only its own part. Worked out once."""
        if self._num_bytes is None:
            total = sum(rows.nbytes(table) for table in (self.records, self.resources, self.scopes))
            object.__setattr__(self, "_num_bytes", total)
        return self._num_bytes or 0

    # Columns

    def column(self, name: str, *, level: Level = "record") -> pa.Array:
        """Return a fixed field, one value per record; `level` says of which table.

        Raises:
            BatchError: There is no such column.

        >>> TelemetryBatch.empty(Signal.TRACES).column("end_time_unix_nano").type
        DataType(uint64)
        """
        table = self._table(level)
        if name not in table.schema.names:
            hint = nearest(name, table.schema.names)
            raise BatchError(
                f"{self.signal} {level}: no column {name!r}"
                + (f"; did you mean {hint!r}?" if hint else f"; there are {', '.join(table.schema.names)}")
            )
        return self._per_record(table[name], level)

    def attribute(self, key: str, *, level: Level = "record", type: pa.DataType | None = None) -> pa.Array:  # noqa: A002 - pyarrow's word
        """Return the attribute `key`, one value per record; null where a record has none.

        Of a repeated key the first counts. See `telflow.attributes.extract_attribute` for `type`: without one the
        values decide, so a flow that computes with the result should say what it expects.

        Raises:
            BatchError: `type` is not string, int64, float64, bool or binary.

        >>> TelemetryBatch.empty(Signal.TRACES).attribute("http.response.status_code", type=pa.int64()).type
        DataType(int64)
        """
        found = attribute_columns.extract_attribute(self._table(level)["attributes"], key, type)
        return self._per_record(found, level)

    def attributes(self, level: Level = "record") -> pa.ListArray:
        """Return the attribute lists of one table: a row for each record, resource or scope."""
        return self._table(level)["attributes"]

    def tenants(self) -> pa.StringArray:
        """Return whose each record is; null when unknown."""
        return self._per_record(self.resources["tenant"], "resource")

    def places(self, level: Literal["resource", "scope"]) -> npt.NDArray[np.uint32]:
        """Return the row number in `resources` or `scopes` of each record."""
        found: npt.NDArray[np.uint32] = self.records.column(_PLACES[level]).to_numpy()
        return found

    # Rows

    def filter(self, mask: pa.BooleanArray | npt.NDArray[np.bool_]) -> TelemetryBatch:
        """Keep the records for which `mask` is true; null counts as false. Resources and scopes stay as they are.

        Raises:
            BatchError: `mask` is not one boolean for each record.
        """
        mask = _check_mask(mask, self.num_rows)
        kept = mask.true_count
        if kept == self.num_rows:
            return self
        return self.with_records(rows.filter_rows(self.records, mask) if kept else _NO_ROWS[self.signal])

    def take(self, indices: pa.Array | npt.NDArray[np.integer[Any]]) -> TelemetryBatch:
        """Return the records at `indices`, in that order.

        Raises:
            BatchError: An index is null, negative, or not below the number of records.
        """
        try:
            found = pa.array(indices) if isinstance(indices, np.ndarray) else indices
            taken = rows.take_rows(self.records, found.cast(pa.uint32()))
        except (pa.ArrowInvalid, ValueError) as error:
            raise BatchError(f"take: expected row numbers below {self.num_rows}: {error}") from error
        return self.with_records(taken)

    def slice(self, offset: int, length: int | None = None) -> TelemetryBatch:
        """Return `length` records from `offset` without copying; everything after `offset` when None."""
        return self.with_records(self.records.slice(offset, length))

    @staticmethod
    def concat(batches: Sequence[TelemetryBatch]) -> TelemetryBatch:
        """Return the records of all batches, in order, as one batch; equal resources and scopes become one row.

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
        tables: dict[Level, pa.RecordBatch] = {}
        records = pa.concat_batches([b.records for b in batches])
        for level in _PLACES:
            tables[level], moved = rows.merge_distinct([b._table(level) for b in batches])  # noqa: SLF001 - its own
            if moved is not None:
                places = [there[b.places(level)] for there, b in zip(moved, batches, strict=True)]
                records = rows.replace_column(records, level, pa.array(np.concatenate(places)))
        unknown_fields = sum(b.unknown_fields for b in batches)
        return TelemetryBatch(signal, records, tables["resource"], tables["scope"], unknown_fields)

    def compact(self) -> TelemetryBatch:
        """Return the batch without resources and scopes that no record refers to; the batch itself if there are none.

        For a batch that leaves its place: what was filtered out must not travel on in the resources.
        """
        records = self.records
        tables: dict[Level, pa.RecordBatch] = {}
        for level in _PLACES:
            table, places = self._table(level), self.places(level)
            used = np.flatnonzero(np.bincount(places, minlength=table.num_rows))
            if len(used) < table.num_rows:
                table = rows.take_rows(table, used.astype(np.uint32))
                moved = np.searchsorted(used, places).astype(np.uint32)
                records = rows.replace_column(records, level, pa.array(moved))
            tables[level] = table
        if records is self.records:
            return self
        return TelemetryBatch(self.signal, records, tables["resource"], tables["scope"], self.unknown_fields)

    # Other content

    def with_records(self, records: pa.RecordBatch) -> TelemetryBatch:
        """Return the batch with other records over the same resources and scopes.

        Raises:
            BatchError: The records do not fit the signal's schema.
        """
        return TelemetryBatch(self.signal, records, self.resources, self.scopes, self.unknown_fields)

    def with_column(self, name: str, values: pa.Array) -> TelemetryBatch:
        """Return the batch with other values in the record column `name`.

        Raises:
            BatchError: There is no such column, or the values are of another type or number.
        """
        self.column(name)
        try:
            records = rows.replace_column(self.records, name, values)
        except (pa.ArrowInvalid, TypeError) as error:
            raise BatchError(f"{self.signal} records: column {name}: {error}") from error
        return self.with_records(records)

    def with_tenant(self, tenant: str | None) -> TelemetryBatch:
        """Return the batch as data of `tenant`."""
        count = self.resources.num_rows
        column = pa.nulls(count, pa.string()) if tenant is None else pa.repeat(pa.scalar(tenant, pa.string()), count)
        return self._with_table("resource", rows.replace_column(self.resources, "tenant", column))

    def with_attributes(
        self, level: Level, values: Mapping[str, AttributeValue | pa.Array], *, mode: PutMode = "upsert"
    ) -> TelemetryBatch:
        """Return the batch with attributes put in at `level`; see `telflow.attributes.put_attributes`.

        Args:
            level: Where.
            values: For each key a value for all rows, or an array with one value for each row of that level's table
                (`records`, `resources` or `scopes`).
            mode: Whether to replace what exists (update), add what does not (insert), or both.

        Raises:
            BatchError: A value has a type no attribute can have, or an array another length.
        """
        return self._edit(level, lambda column: attribute_columns.put_attributes(column, values, mode))

    def drop_attributes(self, keys: Iterable[str], level: Level = "record") -> TelemetryBatch:
        """Return the batch without the attributes under `keys` at `level`; a string alone is one key."""
        names = [keys] if isinstance(keys, str) else list(keys)
        return self._edit(level, lambda column: attribute_columns.drop_attributes(column, names))

    def rename_attributes(self, names: Mapping[str, str], level: Level = "record") -> TelemetryBatch:
        """Return the batch with attributes under other keys at `level`; see `telflow.attributes.rename_attributes`."""
        return self._edit(level, lambda column: attribute_columns.rename_attributes(column, names))

    # Elsewhere

    def to_table(self) -> pa.Table:
        """Return one flat table for analytics: the record columns, then `tenant`, `resource_*` and `scope_*` columns.

        What the records share, each row has a copy of: many times the memory of the batch if resources are large.

        >>> TelemetryBatch.empty(Signal.LOGS).to_table().column_names[-3:]
        ['scope_attributes', 'scope_dropped_attributes_count', 'scope_schema_url']
        """
        names = self.records.schema.names[2:]
        columns = {name: self.records[name] for name in names}
        for level in _PLACES:
            joined = rows.take_rows(self._table(level), self.places(level))
            for name in joined.schema.names:
                columns[name if name == "tenant" else f"{level}_{name}"] = joined[name]
        return pa.table(columns)

    def to_polars(self) -> pl.DataFrame:
        """Return the records as a polars frame; text and numbers are shared with the batch, not copied.

        `resource` and `scope` are row numbers. For a frame with their content use `pl.from_arrow(batch.to_table())`.
        """
        return frames.polars_from_records(self.records)

    def with_polars(self, frame: pl.DataFrame) -> TelemetryBatch:
        """Return the batch with the records of `frame`: what `to_polars` gave, with other rows or values.

        Raises:
            BatchError: A column is missing, unknown, of a type that does not fit, or null where it must not be.
        """
        try:
            return self.with_records(frames.records_from_polars(frame, RECORD_SCHEMAS[self.signal]))
        except BatchError as error:
            raise BatchError(f"{self.signal} records: {error}") from error

    def to_ipc_bytes(self, compression: Literal["lz4", "zstd"] | None = None) -> bytes:
        """Return the batch as plain, versioned bytes to keep; `from_ipc_bytes` reads them, also in a later version.

        Args:
            compression: Of Arrow's buffers. With `lz4` telemetry takes a quarter of the room, and making the bytes
                hardly longer.
        """
        tables = (self.records, self.resources, self.scopes)
        return wire.to_ipc_bytes(self.signal, tables, self.unknown_fields, compression)

    @classmethod
    def from_ipc_bytes(cls, data: bytes) -> TelemetryBatch:
        """Read what `to_ipc_bytes` wrote.

        Raises:
            BatchError: `data` is not that, or from a version this one cannot read.
        """
        signal, (records, resources, scopes), unknown_fields = wire.from_ipc_bytes(data)
        return cls(signal, records, resources, scopes, unknown_fields)

    def __reduce__(self) -> tuple[Callable[..., TelemetryBatch], tuple[Any, ...]]:
        return _unpickle, (wire.pickled(self),)

    def __copy__(self) -> TelemetryBatch:
        return self

    def __deepcopy__(self, _memo: dict[int, object]) -> TelemetryBatch:
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TelemetryBatch):
            return NotImplemented
        if self is other:
            return True
        if self.signal is not other.signal or self.num_rows != other.num_rows:
            return False
        for level in _PLACES:
            _, (mine, theirs) = rows.number_distinct([self._table(level), other._table(level)])
            if not np.array_equal(mine[self.places(level)], theirs[other.places(level)]):
                return False
        own = list(range(len(_PLACES), self.records.num_columns))
        return rows.first_difference(self.records.select(own), other.records.select(own)) is None

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return preview(self.signal, self.records, self.resources, self.scopes, self.num_bytes)

    def _table(self, level: Level) -> pa.RecordBatch:
        match level:
            case "record":
                return self.records
            case "resource":
                return self.resources
            case "scope":
                return self.scopes
        raise BatchError(f"expected level record, resource or scope, got {level!r}")

    def _per_record(self, column: pa.Array, level: Level) -> pa.Array:
        return column if level == "record" else column.take(self.records[level])

    def _with_table(self, level: Level, table: pa.RecordBatch) -> TelemetryBatch:
        tables: dict[Level, pa.RecordBatch] = {"record": self.records, "resource": self.resources, "scope": self.scopes}
        tables[level] = table
        return TelemetryBatch(self.signal, tables["record"], tables["resource"], tables["scope"], self.unknown_fields)

    def _edit(self, level: Level, edit: Callable[[pa.ListArray], pa.ListArray]) -> TelemetryBatch:
        table = self._table(level)
        column = edit(table["attributes"])
        table = rows.replace_column(table, "attributes", column)
        if level == "scope" and table["name"].null_count:
            # A scope that was not there at all has a null name; one that got an attribute is there, unnamed.
            there = pc.greater(pc.list_value_length(column), 0)
            named = pc.if_else(pc.and_(pc.is_null(table["name"]), there), "", table["name"])
            table = rows.replace_column(table, "name", named)
        return self._with_table(level, table)


def _unpickle(payload: bytes) -> TelemetryBatch:
    signal, (records, resources, scopes), unknown_fields = wire.unpickled(payload)
    return TelemetryBatch(signal, records, resources, scopes, unknown_fields)


def _check_mask(mask: Any, count: int) -> pa.BooleanArray:
    if isinstance(mask, np.ndarray):
        mask = pa.array(mask)
    elif isinstance(mask, pa.ChunkedArray):
        mask = mask.combine_chunks()
    if not isinstance(mask, pa.BooleanArray) or len(mask) != count:
        found = f"{len(mask)} of {mask.type}" if isinstance(mask, pa.Array) else type(mask).__name__
        raise BatchError(f"filter: expected a mask of {count} booleans, got {found}")
    return mask


def _check_schema(table: str, got: pa.RecordBatch, expected: pa.Schema) -> None:
    if not isinstance(got, pa.RecordBatch):
        raise BatchError(f"{table}: expected a pyarrow.RecordBatch, got {type(got).__name__}")
    if got.schema.equals(expected):
        return
    for i, column in enumerate(expected):
        have = got.schema.field(i) if i < len(got.schema) else None
        if have is None or not have.equals(column):
            raise BatchError(f"{table}: column {i}: expected {column}, got {have}")
    raise BatchError(f"{table}: expected {len(expected)} columns, got {len(got.schema)}")


def _check_places(records: pa.RecordBatch, name: Literal["resource", "scope"], count: int) -> None:
    if not records.num_rows:
        return
    column = records.column(_PLACES[name])
    if column.null_count:
        raise BatchError(f"records: column {name}: expected row numbers below {count}, got a null")
    highest = int(column.to_numpy().max())
    if highest >= count:
        raise BatchError(f"records: column {name}: expected row numbers below {count}, got {highest}")
