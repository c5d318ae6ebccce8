"""Parcels: the requests of a batch hold all its records, none is too large, and they can be made again."""

from __future__ import annotations

import pytest

from telflow import Signal, TelemetryBatch
from telflow.codec import decode
from telflow.delivery.parcel import Packer, Parcel, split_batch
from tests.delivery import logs


@pytest.mark.parametrize("max_bytes", [100, 1000, 1 << 20])
def test_requests_hold_all_records_in_order(max_bytes: int) -> None:
    """Whatever their size; a single record over the limit goes alone."""
    batch = logs(100, tenant="acme")
    requests = Packer("protobuf", max_bytes=max_bytes).pack(batch)
    assert all(request.size <= max_bytes or request.records == 1 for request in requests)
    bodies = [decode(request.body or b"", Signal.LOGS, tenant="acme") for request in requests]
    assert TelemetryBatch.concat(bodies) == batch
    assert {request.tenant for request in requests} == {"acme"}


def test_routes_make_requests_of_their_own() -> None:
    """Each route's records go in their own requests, split as need be."""

    def halves(batch: TelemetryBatch) -> list[tuple[str, TelemetryBatch]]:
        middle = batch.num_rows // 2
        return [("left", batch.slice(0, middle)), ("right", batch.slice(middle))]

    requests = Packer("protobuf", max_bytes=500, routing=halves).pack(logs(100))
    assert {route: sum(r.records for r in requests if r.route == route) for route in ("left", "right")} == {
        "left": 50,
        "right": 50,
    }
    again = Packer("json", max_bytes=1 << 20).pack_again(requests[0])
    assert [(r.records, r.encoding, r.route) for r in again] == [(requests[0].records, "json", "")]


def test_a_parcel_counts_its_owners_before_and_after_it_is_encoded() -> None:
    """The same sums by tenant from the batch and from its requests; a mixed request has no single owner."""
    mixed = TelemetryBatch.concat([logs(2, tenant="a"), logs(3, tenant="b")])
    parcel = Parcel("", mixed)
    assert (parcel.tenants, parcel.signal) == ({"a": 2, "b": 3}, Signal.LOGS)
    parcel.requests, parcel.batch = Packer("protobuf", max_bytes=1 << 20).pack(mixed), None
    assert (parcel.tenants, parcel.signal) == ({"a": 2, "b": 3}, Signal.LOGS)
    assert parcel.requests[0].tenant is None


def test_split_into_parts_that_are_likely_to_fit() -> None:
    """Ten times too large: a bit more than ten parts, all records once; one record stays one."""
    parts = split_batch(logs(1000), size=10_000, limit=1000)
    assert len(parts) == 11
    assert TelemetryBatch.concat(parts) == logs(1000)
    assert [part.num_rows for part in split_batch(logs(1), size=10_000, limit=1)] == [1]
