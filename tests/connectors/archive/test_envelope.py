"""Resources and scopes as cells of a column: any OTLP library reads them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans

from connectors.archive.envelope import read_resources, read_scopes, resource_cells, scope_cells
from telflow.schema import RESOURCES, SCOPES, Signal
from tests.oracle import batch_from_message, canonical
from tests.strategies import requests, thorough


@thorough(40)
@given(request=requests(Signal.TRACES))
def test_cells_are_otlp_messages_without_content(request: Any) -> None:
    """A cell is the ResourceSpans / ScopeSpans it came from, less what is below it, and reads back as its row."""
    batch = batch_from_message(request, Signal.TRACES, "acme")
    cells = resource_cells(batch.resources)
    for kept, row in zip(cells.to_pylist(), batch.resources.to_pylist(), strict=True):
        message = ResourceSpans.FromString(kept)
        assert not message.scope_spans
        assert message.schema_url == row["schema_url"]
        assert message.HasField("resource") == (row["attributes"] is not None)
    found = {canonical(ResourceSpans.FromString(cell)) for cell in cells.to_pylist()}
    expected = {
        canonical(ResourceSpans(resource=r.resource if r.HasField("resource") else None, schema_url=r.schema_url))
        for r in request.resource_spans
    }
    assert found == expected
    again = read_resources(cells, batch.resources["tenant"])
    assert _exactly(again) == _exactly(batch.resources)
    cells = scope_cells(batch.scopes)
    assert all(not ScopeSpans.FromString(cell).spans for cell in cells.to_pylist())
    assert _exactly(read_scopes(cells)) == _exactly(batch.scopes)


def _exactly(table: pa.RecordBatch) -> str:
    """NaN equals itself here, and -0.0 does not equal 0.0."""
    return repr(table.to_pylist())


def test_no_envelopes() -> None:
    """Nothing to nothing."""
    no_resources = pa.RecordBatch.from_pylist([], schema=RESOURCES)
    no_scopes = pa.RecordBatch.from_pylist([], schema=SCOPES)
    assert len(resource_cells(no_resources)) == len(scope_cells(no_scopes)) == 0
    empty = pa.array([], pa.binary())
    assert read_resources(empty, pa.array([], pa.string())).equals(no_resources)
    assert read_scopes(empty).equals(no_scopes)


def test_long_cells() -> None:
    """Lengths of more than one varint byte, at each border."""
    sizes = [0, 1, 100, 127, 128, 16_383, 16_384, 70_000]
    rows: list[dict[str, Any]] = [
        {"tenant": None, "attributes": [], "dropped_attributes_count": 0, "entity_refs": [], "schema_url": "u" * size}
        for size in sizes
    ]
    resources = pa.RecordBatch.from_pylist(rows, schema=RESOURCES)
    cells = resource_cells(resources)
    assert [len(ResourceSpans.FromString(cell).schema_url) for cell in cells.to_pylist()] == sizes
    assert read_resources(cells, resources["tenant"]).equals(resources)
