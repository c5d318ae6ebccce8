"""service_graph, the step of a dataflow: on one worker or many, killed and rescaled: as the reference has it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from operators import ServiceGraphSettings, service_graph
from telflow.accounting import Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.codec import encode
from telflow.schema import Signal
from tests import points_flow
from tests.crash import killed_and_rescaled
from tests.metric_points import points_of
from tests.numbered_source import SOURCES, half_way
from tests.points_flow import GRAPH, NOW, line_of
from tests.service_graph_reference import (
    CLIENT,
    SERVER,
    Half,
    calls_of,
    edges_of,
    halves_batch,
    points_of_edges,
)
from tests.spans import EPOCH, SECOND

COUNT = 25


def expected() -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Lines of points, and spans left out by tenant and reason."""
    out, left_out = Counter[str](), Counter[tuple[str, str]]()
    for source in SOURCES:
        halves = [half for number in range(COUNT) for half in calls_of(source, number) if half.tenant == source]
        edges, missing = edges_of(halves, GRAPH, NOW - EPOCH)
        out.update(line_of(point) for point in points_of_edges(edges, GRAPH))
        left_out.update({(source, reason): count for reason, count in missing.items()})
    return out, left_out


def test_killed_and_rescaled_the_results_are_exact(tmp_path: Path) -> None:
    """Three processes, killed at once with requests half seen, go on as two: each request counts once."""
    environment = {"FOLDER": str(tmp_path), "STEP": "service_graph", "COUNT": str(COUNT)}
    killed_and_rescaled(Path(points_flow.__file__), tmp_path, environment, lambda: half_way(tmp_path, COUNT))
    assert Counter(points_flow.lines(tmp_path)) == expected()[0]


@pytest.mark.parametrize("workers", [1, 3])
def test_each_request_counts_once(workers: int) -> None:
    """On any number of workers; what is left out is in the ledger, and all that was made."""
    batches = [halves_batch(calls_of(source, n)) for n in range(COUNT) for source in SOURCES]
    out: list[TelemetryBatch] = []
    ledger = Ledger()
    flow = Dataflow("test")
    up = op.input("in", flow, TestingSource(batches))
    op.output("out", points_flow.convert("service_graph", up, ledger), TestingSink(out))
    if workers == 1:
        run_main(flow)
    else:
        cluster_main(flow, [], 0, worker_count_per_proc=workers)
    points, left_out = expected()
    assert Counter(line_of(point) for point in points_of(out)) == points
    rows = [row for row in ledger.rows() if row.outcome is Outcome.DROPPED]
    assert {(row.tenant, row.reason): row.count for row in rows} == left_out
    made = [row.count for row in ledger.rows() if row.outcome is Outcome.DERIVED and row.signal is Signal.METRICS]
    assert sum(made) == sum(points.values())


def test_the_metrics_are_those_of_the_collector() -> None:
    """Names, attributes and kinds, as the official library reads them; cumulative from window to window."""
    halves = [
        Half(1, 1, None, CLIENT, 0, service="shop", failed=True),
        Half(1, 2, 1, SERVER, SECOND // 100, service="pay"),
        Half(2, 1, None, CLIENT, 20 * SECOND, service="shop", failed=True),
        Half(2, 2, 1, SERVER, 20 * SECOND, service="pay"),
    ]
    settings = ServiceGraphSettings.model_validate({"window": "10s", "emit_on_eof": True, "idle_timeout": None})
    out: list[Any] = []
    flow = Dataflow("test")
    up = op.input("in", flow, TestingSource([halves_batch(halves), TelemetryBatch.empty(Signal.LOGS)]))
    op.output("out", service_graph("graph", up, settings, lambda: NOW, Ledger()), TestingSink(out))
    run_main(flow)
    assert [key for key, _ in out] == ["acme", "acme"]
    request = ExportMetricsServiceRequest.FromString(encode(out[-1][1]))
    found = {metric.name: metric for metric in request.resource_metrics[0].scope_metrics[0].metrics}
    assert list(found) == [
        "traces_service_graph_request_total",
        "traces_service_graph_request_failed_total",
        "traces_service_graph_request_server_seconds",
        "traces_service_graph_request_client_seconds",
    ]
    (total,) = found["traces_service_graph_request_total"].sum.data_points
    attributes = [(a.key, getattr(a.value, str(a.value.WhichOneof("value")))) for a in total.attributes]
    assert attributes == [("client", "shop"), ("server", "pay"), ("connection_type", ""), ("failed", True)]
    assert total.as_int == 2
    (failed,) = found["traces_service_graph_request_failed_total"].sum.data_points
    assert failed.as_int == 2
    (server,) = found["traces_service_graph_request_server_seconds"].histogram.data_points
    assert (server.count, round(server.sum, 9)) == (2, 0.2)
