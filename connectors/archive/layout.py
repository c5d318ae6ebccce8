"""What an archive table looks like, and batches turned into its rows and back without a loop over records.

One table per signal. Its columns are those of `telflow.schema.RECORD_SCHEMAS` under the same names, in types that Delta
Lake has (see `stored_type`), plus for each record its resource and scope (`connectors.archive.envelope`), copies of
what queries filter on, and the partition column ``date``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.archive.envelope import read_resources, read_scopes, resource_cells, scope_cells
from connectors.archive.promote import PromotedAttribute, extract
from telflow.attributes_json import attributes_json
from telflow.batch import TelemetryBatch
from telflow.errors import ConfigError
from telflow.schema import RECORD_SCHEMAS, Signal

__all__ = [
    "ENVELOPE_COLUMNS",
    "EVENT_TIME_COLUMNS",
    "archive_schema",
    "check_promote",
    "event_time",
    "from_rows",
    "stored_type",
    "to_rows",
]

EVENT_TIME_COLUMNS = {
    Signal.TRACES: ("start_time_unix_nano",),
    Signal.METRICS: ("time_unix_nano",),
    Signal.LOGS: ("time_unix_nano", "observed_time_unix_nano"),
}
"""Where a record's event time stands: the first of these that is not 0 (logs data model, "Field: Timestamp")."""

ENVELOPE_COLUMNS = ("tenant", "resource", "scope")
"""The columns beside the records' own from which a batch is rebuilt."""

_NANOS_PER_DAY = 86_400_000_000_000
_FIRST_DAY, _LAST_DAY = 10_957, 47_481  # 2000-01-01, 2099-12-31
_MAX_DATES = 64


def stored_type(dtype: pa.DataType) -> pa.DataType:
    """Return the type a column of type `dtype` has in the archive.

    Delta Lake has no unsigned integers and no fixed-size binary: uint64 keeps its bits as int64 (2**64 - 1 reads -1),
    narrower ones are widened. Nanoseconds stay integers, since a Delta timestamp ends at microseconds.

    >>> stored_type(pa.list_(pa.uint64()))
    ListType(list<element: int64>)
    """
    if pa.types.is_list(dtype):
        item = dtype.value_field
        return pa.list_(pa.field("element", stored_type(item.type), nullable=item.nullable))
    if pa.types.is_struct(dtype):
        return pa.struct([pa.field(f.name, stored_type(f.type), nullable=f.nullable) for f in dtype])
    if dtype in {pa.uint64(), pa.uint32()}:
        return pa.int64()
    if dtype == pa.uint8():
        return pa.int16()
    return pa.binary() if pa.types.is_fixed_size_binary(dtype) else dtype


@functools.cache
def _stored_records(signal: Signal) -> pa.Schema:
    own = [f for f in RECORD_SCHEMAS[signal] if f.name not in {"resource", "scope"}]
    return pa.schema([pa.field(f.name, stored_type(f.type), nullable=f.nullable) for f in own])


_ENVELOPE = [
    pa.field("tenant", pa.string()),
    pa.field("service_name", pa.string()),
    pa.field("resource", pa.binary(), nullable=False),
    pa.field("resource_attributes", pa.string()),
    pa.field("scope", pa.binary(), nullable=False),
    pa.field("scope_name", pa.string()),
    pa.field("scope_version", pa.string()),
]
DATE = pa.field("date", pa.date32())
"""Partition column: the UTC day of the event time; null for records without a plausible one."""


def archive_schema(signal: Signal, promote: Sequence[PromotedAttribute] = ()) -> pa.Schema:
    """Return the schema of a signal's table, the partition column last."""
    promoted = [pa.field(entry.name, entry.arrow_type) for entry in promote]
    return pa.schema([*_stored_records(signal), *_ENVELOPE, *promoted, DATE])


def check_promote(promote: Sequence[PromotedAttribute]) -> None:
    """Refuse promoted columns that take each other's name or a name the archive uses itself.

    Raises:
        ConfigError: Which entry, and what it collides with.
    """
    taken = {name: f"a column of the {signal} table" for signal in Signal for name in archive_schema(signal).names}
    for number, entry in enumerate(promote):
        if entry.name in taken:
            raise ConfigError(
                f"promote[{number}] ({entry.attribute}): column {entry.name!r} is already {taken[entry.name]};"
                f" hint: give it another name with `column`"
            )
        taken[entry.name] = f"promote[{number}] ({entry.attribute})"


def to_rows(batches: Sequence[TelemetryBatch], promote: Sequence[PromotedAttribute] = ()) -> pa.Table:
    """Return the archive rows of batches of one signal, one per record in the same order (schema: `archive_schema`).

    What resources and scopes say is worked out once for all batches, and stands in the rows as dictionary arrays.
    """
    signal = batches[0].signal
    schema = archive_schema(signal, promote)
    shared = _shared(batches, promote)
    fields = [f.with_type(shared[f.name][1].type) if f.name in shared else f for f in schema]
    dates = _date(pa.concat_arrays([event_time(signal, batch.records) for batch in batches]))
    base = {"resource": 0, "scope": 0}
    row = 0
    chunks = []
    for batch in batches:
        place = {level: pc.add(batch.records[level].cast(pa.int64()), rows) for level, rows in base.items()}
        own = _promoted(batch.records["attributes"], promote, "record")
        own["date"] = dates.slice(row, batch.num_rows)
        columns = []
        for field in schema:
            if field.name in shared:
                level, values = shared[field.name]
                columns.append(pa.DictionaryArray.from_arrays(values.indices.take(place[level]), values.dictionary))
            elif field.name in own:
                columns.append(own[field.name])
            else:
                columns.append(batch.records[field.name].cast(field.type, safe=False))
        chunks.append(pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields)))
        base = {"resource": base["resource"] + batch.resources.num_rows, "scope": base["scope"] + batch.scopes.num_rows}
        row += batch.num_rows
    return pa.Table.from_batches(chunks)


def _shared(
    batches: Sequence[TelemetryBatch], promote: Sequence[PromotedAttribute]
) -> dict[str, tuple[str, pa.DictionaryArray]]:
    """The columns that depend on a record's resource or scope only: which of them, and a value for each of all."""
    resources = pa.concat_batches([batch.resources for batch in batches])
    scopes = pa.concat_batches([batch.scopes for batch in batches])
    of_resource = {
        "tenant": resources["tenant"],
        "service_name": extract(resources["attributes"], [("service.name", "string")])[0],
        "resource": resource_cells(resources),
        "resource_attributes": attributes_json(resources["attributes"]),
        **_promoted(resources["attributes"], promote, "resource"),
    }
    of_scope = {
        "scope": scope_cells(scopes),
        "scope_name": scopes["name"],
        "scope_version": scopes["version"],
        **_promoted(scopes["attributes"], promote, "scope"),
    }
    shared = {name: ("resource", values.dictionary_encode()) for name, values in of_resource.items()}
    return shared | {name: ("scope", values.dictionary_encode()) for name, values in of_scope.items()}


def _promoted(attributes: pa.ListArray, promote: Sequence[PromotedAttribute], level: str) -> dict[str, pa.Array]:
    entries = [entry for entry in promote if entry.level == level]
    found = extract(attributes, [(entry.attribute, entry.type) for entry in entries])
    return {entry.name: column for entry, column in zip(entries, found, strict=True)}


def from_rows(signal: Signal, rows: pa.Table | pa.RecordBatch) -> TelemetryBatch:
    """Return the batch that `rows` are the archive of; equal resources and scopes become one row.

    Args:
        signal: The table the rows are from.
        rows: The columns of `RECORD_SCHEMAS[signal]` but its row numbers, and `ENVELOPE_COLUMNS`; others are ignored.

    Raises:
        DecodeError: A resource or scope cell is not an OTLP message.
    """
    tenants, resources, scopes = (_encoded(rows[name]) for name in ENVELOPE_COLUMNS)
    # One resource is a pair of (tenant, cell); its code is unique and small.
    width = len(resources.dictionary) + 1
    tenant_codes = pc.fill_null(tenants.indices, len(tenants.dictionary)).to_numpy().astype(np.int64)
    pairs = pa.array(tenant_codes * width + resources.indices.to_numpy()).dictionary_encode()
    of_pair = pairs.dictionary.to_numpy()
    tenant_of_pair = of_pair // width
    no_tenant = tenant_of_pair == len(tenants.dictionary)
    resource_rows = read_resources(
        resources.dictionary.take(pa.array(of_pair % width)),
        tenants.dictionary.take(pa.array(tenant_of_pair, mask=no_tenant)),
    )
    scopes = scopes.indices.dictionary_encode(), scopes.dictionary
    scope_rows = read_scopes(scopes[1].take(scopes[0].dictionary))
    schema = RECORD_SCHEMAS[signal]
    places = {"resource": pairs.indices.cast(pa.uint32()), "scope": scopes[0].indices.cast(pa.uint32())}
    columns = [places[f.name] if f.name in places else _flat(rows[f.name]).cast(f.type, safe=False) for f in schema]
    return TelemetryBatch(signal, pa.RecordBatch.from_arrays(columns, schema=schema), resource_rows, scope_rows)


def event_time(signal: Signal, records: pa.Table | pa.RecordBatch) -> pa.Array:
    """Return each record's event time as int64 nanoseconds, bit for bit as stored; 0 where it has none."""
    first, *others = (_flat(records[name]).cast(pa.int64(), safe=False) for name in EVENT_TIME_COLUMNS[signal])
    for other in others:
        first = pc.if_else(pc.equal(first, 0), other, first)
    return first


def _date(time_unix_nano: pa.Array) -> pa.Array:
    """Days, null when out of 2000-2099 or not among the 64 most frequent of the batch.

    The bound is on the number of files one write makes: a sender's random times must not cost a file each.
    """
    days = time_unix_nano.to_numpy() // _NANOS_PER_DAY
    distinct, inverse, counts = np.unique(days, return_inverse=True, return_counts=True)
    kept = (distinct >= _FIRST_DAY) & (distinct <= _LAST_DAY)
    frequent = np.argsort(np.where(kept, counts, -1), kind="stable")[::-1][:_MAX_DATES]
    chosen = np.zeros(len(distinct), bool)
    chosen[frequent] = True
    return pa.array(days.astype(np.int32), pa.int32(), mask=~(chosen & kept)[inverse]).cast(pa.date32())


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _encoded(column: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column
        column = pa.concat_arrays(column.chunks) if column.num_chunks else column.combine_chunks()
    return column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
