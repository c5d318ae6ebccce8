"""The halves of requests: what the service graph needs of the span of a client or of a server, and nothing else.

A request has a client's (or producer's) span and a server's (or consumer's) span whose parent it is; they are found by
the trace id and the client's span id. Halves are what crosses to the worker that pairs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telflow.accounting import split_by_tenant
from telflow.attributes import extract_attribute
from telflow.batch import TelemetryBatch
from telflow.rows import take_rows
from telflow.sampling import shards_of_words, trace_words
from telflow.schema import Signal
from telflow.service_graph.settings import ServiceGraphSettings

__all__ = ["NO_TENANT", "dimension_fields", "halves_by_key", "halves_of", "halves_schema"]

Ints: TypeAlias = npt.NDArray[np.int64]

NO_TENANT = "(none)"
"""Key of spans whose owner is unknown."""

_SERVER, _CLIENT, _PRODUCER, _CONSUMER = 2, 3, 4, 5  # SpanKind of opentelemetry.proto.trace.v1
_ERROR = 2
_UNKNOWN_SERVICE = pa.scalar("unknown_service", pa.string())
_NO_STATUS = pa.scalar(0, pa.int32())
_NO_TEXT = pa.scalar(None, pa.string())


def dimension_fields(prefix: str, settings: ServiceGraphSettings) -> list[pa.Field]:
    """Return the columns of the dimensions asked for."""
    return [pa.field(f"{prefix}{name}", pa.string()) for name in settings.dimensions]


def halves_schema(settings: ServiceGraphSettings) -> pa.Schema:
    """Return the columns of halves."""
    return pa.schema(
        [
            ("tenant", pa.string()),
            ("trace_high", pa.uint64()),
            ("trace_low", pa.uint64()),
            ("span", pa.uint64()),  # the client's; 0: there is none
            ("is_server", pa.bool_()),
            ("service", pa.string()),
            ("messaging", pa.bool_()),
            ("duration", pa.int64()),
            ("failed", pa.bool_()),
            ("end", pa.int64()),
            ("peer", pa.string()),
            ("database", pa.string()),
            *dimension_fields("", settings),
        ]
    )


def halves_of(batch: TelemetryBatch, settings: ServiceGraphSettings) -> pa.RecordBatch:
    """Return the halves among the spans of a batch, in their order; spans without a trace id are none."""
    schema = halves_schema(settings)
    records = batch.records
    kinds = records["kind"].to_numpy()
    ids = records["trace_id"].is_valid().to_numpy(zero_copy_only=False)
    rows = np.flatnonzero((kinds >= _SERVER) & (kinds <= _CONSUMER) & ids)
    if not rows.size:
        return pa.RecordBatch.from_pylist([], schema)
    names = ["resource", "trace_id", "span_id", "parent_span_id", "status_code", "attributes"]
    names += ["start_time_unix_nano", "end_time_unix_nano"]
    records = take_rows(records.select(names), rows.astype(np.uint32))
    kinds = kinds[rows]
    place, resources = records["resource"], batch.resources
    server = (kinds == _SERVER) | (kinds == _CONSUMER)
    high, low = trace_words(records["trace_id"])
    span = np.where(server, _words(records["parent_span_id"]), _words(records["span_id"]))
    start, end = (records[f"{name}_time_unix_nano"].to_numpy() for name in ("start", "end"))
    service = extract_attribute(resources["attributes"], "service.name", pa.string()).fill_null(_UNKNOWN_SERVICE)
    client = pa.array(~server)

    def of_client(keys: Sequence[str]) -> pa.Array:
        found = [extract_attribute(records["attributes"], key, pa.string()) for key in keys]
        return pc.if_else(client, pc.coalesce(*found), _NO_TEXT) if found else pa.nulls(len(rows), pa.string())

    def either(key: str) -> pa.Array:
        inherited = extract_attribute(resources["attributes"], key, pa.string())
        return pc.coalesce(extract_attribute(records["attributes"], key, pa.string()), inherited.take(place))

    columns = [
        resources["tenant"].take(place),
        pa.array(high),
        pa.array(low),
        pa.array(span),
        pa.array(server),
        service.take(place),
        pa.array((kinds == _PRODUCER) | (kinds == _CONSUMER)),
        pa.array((end - np.minimum(start, end)).astype(np.int64)),
        pa.array(records["status_code"].fill_null(_NO_STATUS).to_numpy() == _ERROR),
        pa.array(np.minimum(end, np.uint64(2**62)).astype(np.int64)),
        of_client(settings.virtual_node_peer_attributes),
        pc.if_else(client, either(settings.database_name_attribute), _NO_TEXT),
        *(either(name) for name in settings.dimensions),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def halves_by_key(batch: TelemetryBatch, settings: ServiceGraphSettings) -> list[tuple[str, pa.RecordBatch]]:
    """Divide the halves of a batch by tenant and part of all traces."""
    if batch.signal is not Signal.TRACES or not batch.num_rows:
        return []
    found = []
    for tenant, owned in split_by_tenant(batch):
        halves = halves_of(owned, settings)
        if not halves.num_rows:
            continue
        words = halves["trace_high"].to_numpy(), halves["trace_low"].to_numpy()
        shard = shards_of_words(*words, settings.shards)
        for number in np.unique(shard).tolist():
            rows = np.flatnonzero(shard == number).astype(np.uint32)
            part = halves if len(rows) == halves.num_rows else take_rows(halves, rows)
            found.append((f"{tenant or NO_TENANT}/{number}", part))
    return found


def _words(ids: pa.FixedSizeBinaryArray) -> npt.NDArray[np.uint64]:
    """Span ids as they lie in memory; 0 where there is none."""
    words = np.frombuffer(ids.buffers()[1], np.uint64)[ids.offset : ids.offset + len(ids)]
    return np.where(ids.is_valid().to_numpy(zero_copy_only=False), words, np.uint64(0))
