"""Metrics in the gateway: parts that make and convert them, switched on in its settings, and what leaves then."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from bytewax.testing import run_main
from pydantic import ValidationError

from connectors.otlp import NullOtlpServer
from flows.gateway import GatewaySettings, build
from telflow import codec
from telflow.accounting import Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.delivery.intake import MemoryIntake
from telflow.schema import Signal
from tests.metric_points import Point, metrics_batch_of, points_of
from tests.service_graph_reference import CLIENT, SERVER, Half, halves_batch
from tests.spans import EPOCH, SECOND


class _Given(MemoryIntake):
    def __init__(self, batches: list[TelemetryBatch]) -> None:
        super().__init__()
        self._given = batches

    def take(self, *, timeout_s: float, max_bytes: int, linger_s: float = 0.0) -> list[TelemetryBatch]:
        if self._given:
            return [self._given.pop(0)]
        return super().take(timeout_s=timeout_s, max_bytes=max_bytes, linger_s=linger_s)

    @property
    def drained(self) -> bool:
        return not self._given and super().drained


def _run(batches: list[TelemetryBatch], **settings: Any) -> tuple[list[Point], Ledger]:
    """Points that leave, without those of span metrics."""
    with NullOtlpServer(keep=True) as server:
        ledger, intake = Ledger(), _Given(batches)
        for batch in batches:
            ledger.add_batch(Outcome.RECEIVED, batch, component="otlp")
        intake.close()
        options = {
            "exporters": {"out": {"endpoint": f"127.0.0.1:{server.grpc_port}"}},
            "span_metrics": False,
            "telemetry": False,
            "storage": {"durability": "memory"},
            **settings,
        }
        flow = build(GatewaySettings.model_validate(options), intake, ledger=ledger)
        run_main(flow, epoch_interval=timedelta(seconds=1))
        found = [
            codec.decode(kept.payload, kept.signal, kept.encoding)
            for kept in server.kept
            if kept.signal is Signal.METRICS
        ]
    return points_of(found), ledger


def test_attributes_left_out_then_totals() -> None:
    """Deltas of two pods become one metric, and that a total; every record is accounted for."""
    now = time.time_ns() - EPOCH
    points = [Point(now, n, now - SECOND, attributes={"pod": str(n)}) for n in (1, 2)]
    found, ledger = _run([metrics_batch_of(points)], reaggregate={"remove": ["pod"]}, delta_to_cumulative={})
    assert [(p.value, p.attributes, p.temporality) for p in found] == [(3, {}, 2)]
    assert ledger.balance()["acme", Signal.METRICS].in_flight == 0


def test_totals_become_deltas() -> None:
    """The first point is what later ones are compared with."""
    now = time.time_ns() - EPOCH
    points = [Point(now + n, 10 * n, 1, temporality=2) for n in (1, 2)]
    found, ledger = _run([metrics_batch_of(points)], cumulative_to_delta={})
    assert [(p.value, p.temporality) for p in found] == [(10, 1)]
    assert ledger.balance()["acme", Signal.METRICS].in_flight == 0


def test_the_service_graph_leaves_with_the_spans() -> None:
    """A request whose spans are both there."""
    halves = [Half(1, 1, None, CLIENT, 0, service="shop"), Half(1, 2, 1, SERVER, 0, service="pay")]
    found, ledger = _run([halves_batch(halves)], service_graph={})
    values = {p.name: p.value for p in found}
    assert values["traces_service_graph_request_total"] == 1
    assert {(p.attributes["client"], p.attributes["server"]) for p in found} == {("shop", "pay")}
    assert ledger.balance()["acme", Signal.METRICS].in_flight == 0


def test_one_temporality_at_a_time() -> None:
    """Both conversions together make no sense."""
    with pytest.raises(ValidationError, match="expected one of it and delta_to_cumulative"):
        GatewaySettings.model_validate({"delta_to_cumulative": {}, "cumulative_to_delta": {}})
