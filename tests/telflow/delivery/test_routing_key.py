"""Routing keys: equal keys give equal numbers, in every batch; what has no key is spread all the same."""

from __future__ import annotations

import numpy as np
import pytest

from telflow import Signal, TelemetryBatch
from telflow.delivery.routing_key import RoutingKey
from tests.batches import spans
from tests.delivery import logs
from tests.oracle import REQUESTS, batch_from_message


def points(service: str) -> TelemetryBatch:
    request = REQUESTS[Signal.METRICS]()
    resource = request.resource_metrics.add()  # type: ignore[attr-defined]
    resource.resource.attributes.add(key="service.name").value.string_value = service
    metric = resource.scope_metrics.add().metrics.add(name="m")
    for _ in range(3):
        metric.gauge.data_points.add(as_int=1)
    return batch_from_message(request, Signal.METRICS)


def test_spans_of_a_trace_belong_together_across_batches() -> None:
    """The same trace in two batches has one number; another trace another."""
    one, other = spans([{}] * 4), spans([{}] * 4, first=2)
    key = RoutingKey()
    by_trace: dict[bytes, set[int]] = {}
    for batch in (one, other):
        for trace, number in zip(batch.column("trace_id").to_pylist(), key.hashes(batch).tolist(), strict=True):
            by_trace.setdefault(trace, set()).add(number)
    assert all(len(numbers) == 1 for numbers in by_trace.values())
    assert len(set().union(*by_trace.values())) == len(by_trace)


def test_attributes_of_the_record_come_before_those_of_its_resource() -> None:
    """A number and its text are the same key; a record without the attribute goes by its resource's."""
    batch = spans([{"user": 7}, {"user": "7"}, {"user": "8"}, {}], resource={"user": "8", "service.name": "cart"})
    first, second, third, fourth = RoutingKey("user").hashes(batch).tolist()
    assert first == second
    assert first != third
    assert third == fourth


def test_data_points_go_by_their_service() -> None:
    """They have no trace."""
    key = RoutingKey()
    cart, shop = key.hashes(points("cart")), key.hashes(points("shop"))
    assert len(set(cart.tolist())) == 1
    assert cart[0] != shop[0]
    assert np.array_equal(cart, RoutingKey("trace_id").hashes(points("cart")))


@pytest.mark.parametrize("name", ["trace_id", "no.such.attribute"])
def test_records_without_any_key_stay_together_and_each_batch_goes_elsewhere(name: str) -> None:
    """A hundred batches of nothing do not all go to one endpoint."""
    key = RoutingKey(name)
    numbers = [set(key.hashes(logs(5)).tolist()) for _ in range(100)]
    assert all(len(each) == 1 for each in numbers)
    assert len(set().union(*numbers)) == 100


def test_by_tenant() -> None:
    """Records of one tenant have one number."""
    batch = TelemetryBatch.concat([logs(2, tenant="a"), logs(2, tenant="b"), logs(1, tenant="a")])
    found = RoutingKey("tenant").hashes(batch).tolist()
    assert len({found[0], found[1], found[4]}) == 1
    assert len(set(found)) == 2
