"""Spans as plain rows, batches made of them, and metric points read back: for tests of what counts spans."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from telflow.batch import TelemetryBatch
from telflow.schema import RECORD_SCHEMAS, RESOURCES, SCOPES, Signal
from tests.oracle import any_value

SECOND = 1_000_000_000
EPOCH = 1_750_000_000 * SECOND  # divisible by 10 s


@dataclass(frozen=True)
class Span:
    """A span as a test thinks of it; times in nanoseconds."""

    end: int
    duration: int = SECOND
    name: str = "GET /"
    service: str | None = "shop"
    tenant: str | None = "acme"
    kind: int = 2
    status: int | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    resource_attributes: dict[str, Any] = field(default_factory=dict)


def spans_batch(spans: Sequence[Span]) -> TelemetryBatch:
    """The spans in their order, each run of equal resources with a resource of its own."""
    resources: list[dict[str, Any]] = []
    records = []
    for span in spans:
        own = {} if span.service is None else {"service.name": span.service}
        resource = {"tenant": span.tenant, "attributes": _attributes(own | span.resource_attributes)}
        if not resources or resources[-1] != resource:
            resources.append(resource)
        records.append(
            {
                "resource": len(resources) - 1,
                "name": span.name,
                "kind": span.kind,
                "start_time_unix_nano": span.end - span.duration,
                "end_time_unix_nano": span.end,
                "attributes": _attributes(span.attributes),
                "status_code": span.status,
            }
        )
    return TelemetryBatch(
        Signal.TRACES,
        _table(records, RECORD_SCHEMAS[Signal.TRACES]),
        _table(resources, RESOURCES),
        _table([{"name": "test"}], SCOPES),
    )


def points(batches: Iterable[TelemetryBatch]) -> list[dict[str, Any]]:
    """Every data point with its tenant and resource, attributes as dictionaries."""
    found = []
    for batch in batches:
        resources = batch.resources.to_pylist()
        for row in batch.records.to_pylist():
            resource = resources[row["resource"]]
            attributes = [(a["key"], _plain(a)) for a in row["attributes"]]
            assert len({key for key, _ in attributes}) == len(attributes)
            found.append(
                {
                    **row,
                    "tenant": resource["tenant"],
                    "resource": {a["key"]: _plain(a) for a in resource["attributes"]},
                    "attributes": dict(attributes),
                }
            )
    return found


def _plain(attribute: dict[str, Any]) -> Any:
    values = [attribute[child] for child in ("str", "int", "double", "bool", "bytes") if attribute[child] is not None]
    assert len(values) == 1
    return values[0]


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, **_any(value)} for key, value in values.items()]


def _any(value: Any) -> dict[str, Any]:
    # Message: an AnyValue; else a plain value.
    if hasattr(value, "WhichOneof"):
        return any_value(value)
    number, child = {bool: (2, "bool"), int: (3, "int"), float: (4, "double"), str: (1, "str"), bytes: (7, "bytes")}[
        type(value)
    ]
    return {"type": number, child: value}


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{f.name: row.get(f.name, _default(f)) for f in schema} for row in rows], schema)


def _default(column: pa.Field) -> Any:
    if column.nullable:
        return None
    if pa.types.is_list(column.type):
        return []
    return "" if pa.types.is_string(column.type) else 0
