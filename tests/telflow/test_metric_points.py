"""Metrics batches from columns: valid OTLP for the official library, meaning what the columns said."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from telflow.codec import encode
from telflow.columns import attribute_lists
from telflow.metric_points import HistogramPoints, SumPoints, Temporality, metrics_batch
from telflow.schema import Signal
from tests.oracle import batch_from_message


def test_series_with_equal_resource_share_it_and_metrics_stay_whole() -> None:
    """Three series of two resources: two resources with two metrics each, points in order."""
    batch = metrics_batch(
        [
            SumPoints("calls", "Number of calls", "{call}", np.array([1, 2, 3])),
            HistogramPoints(
                "duration",
                "",
                "s",
                bounds=np.array([0.5, 1.0]),
                bucket_counts=np.array([[1, 0, 0], [0, 2, 0], [0, 0, 3]]),
                sum=np.array([0.1, 1.5, 9.0]),
                min=np.array([0.1, 0.7, 2.0]),
                max=np.array([0.1, 0.8, 4.0]),
            ),
        ],
        scope="test",
        tenant=pa.array(["a", "a", "a"]),
        resource_attributes={"service.name": pa.array(["x", None, "x"])},
        attributes=attribute_lists(3, [("n", pa.array([1, 2, 3]))]),
        temporality=Temporality.DELTA,
        start_time_unix_nano=np.array([10, 20, 30]),
        time_unix_nano=40,
    )
    assert batch.resources["tenant"].to_pylist() == ["a", "a"]
    request = ExportMetricsServiceRequest.FromString(encode(batch))
    (x, nameless) = request.resource_metrics
    assert [a.value.string_value for a in x.resource.attributes] == ["x"]
    assert not nameless.resource.attributes
    (scope_metrics,) = x.scope_metrics
    assert scope_metrics.scope.name == "test"
    calls, duration = scope_metrics.metrics
    assert (calls.name, calls.description, calls.unit) == ("calls", "Number of calls", "{call}")
    assert calls.sum.is_monotonic
    assert (
        int(calls.sum.aggregation_temporality) == int(duration.histogram.aggregation_temporality) == Temporality.DELTA
    )
    assert [(p.as_int, p.start_time_unix_nano, p.time_unix_nano) for p in calls.sum.data_points] == [
        (1, 10, 40),
        (3, 30, 40),
    ]
    first, third = duration.histogram.data_points
    assert (first.count, first.sum, first.min, first.max, list(first.bucket_counts)) == (1, 0.1, 0.1, 0.1, [1, 0, 0])
    assert (third.count, list(third.explicit_bounds), third.attributes[0].value.int_value) == (3, [0.5, 1.0], 3)


def test_the_official_library_reads_the_same_rows() -> None:
    """Read back object by object, the request gives the batch's own rows."""
    batch = metrics_batch(
        [SumPoints("calls", "", "", np.array([5]))],
        scope="test",
        tenant=pa.array(["a"]),
        resource_attributes={},
        attributes=attribute_lists(1, []),
        temporality=Temporality.CUMULATIVE,
        start_time_unix_nano=np.array([1]),
        time_unix_nano=2,
    )
    request = ExportMetricsServiceRequest.FromString(encode(batch))
    again = batch_from_message(request, Signal.METRICS, tenant="a")
    assert again.records.to_pylist() == batch.records.to_pylist()
    assert again.resources.to_pylist() == batch.resources.to_pylist()
