"""What a metrics batch becomes as remote write: equal to a translation point by point, for every kind of point."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE as CUMULATIVE
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA as DELTA

from connectors.prometheus.remote_write import Translator, acceptable
from connectors.prometheus.series_labels import SeriesLabels
from connectors.prometheus.settings import LabelSettings
from telflow.batch import TelemetryBatch
from telflow.codec import decode
from telflow.schema import Signal
from tests.connectors.prometheus.write_request import WriteRequest, expected, read

T0_NANO = 1_750_000_000_000_000_000


def _random_request(rng: random.Random, points: int = 40) -> Any:
    """Every kind of point, cumulative, with and without values, buckets, sums, attributes; some twice."""
    request = ExportMetricsServiceRequest()
    for _ in range(2):
        of_resource = request.resource_metrics.add()
        for key in rng.sample(["service.name", "service.namespace", "service.instance.id", "host"], rng.randrange(5)):
            of_resource.resource.attributes.add(key=key).value.string_value = rng.choice(["a", "b"])
        of_scope = of_resource.scope_metrics.add()
        of_scope.scope.name = rng.choice(["", "lib"])
        of_scope.scope.version = rng.choice(["", "1"])
        for number in range(points // 2):
            _add_point(rng, of_scope.metrics.add(name=f"m.{number % 9}", unit=rng.choice(["", "s", "By", "{x}"])))
    return request


def _add_point(rng: random.Random, metric: Any) -> None:
    kind = rng.choice(["gauge", "sum", "histogram", "exponential_histogram", "summary"])
    data = getattr(metric, kind)
    if kind in ("sum", "histogram", "exponential_histogram"):
        data.aggregation_temporality = CUMULATIVE
    if kind == "sum":
        data.is_monotonic = rng.random() < 0.5
    point = data.data_points.add(time_unix_nano=T0_NANO + rng.randrange(5) * 10**9, flags=int(rng.random() < 0.1))
    texts = {"http.route": rng.choice(["", "/ä", "/b"]), "k": "v"}
    for key in rng.sample(["http.route", "k", "n", "ok"], rng.randrange(5)):
        point.attributes.add(key=key).value.CopyFrom(
            AnyValue(string_value=texts[key]) if key in texts
            else AnyValue(bool_value=True) if key == "ok" else AnyValue(int_value=rng.randrange(3))
        )  # fmt: skip
    if kind in ("gauge", "sum"):
        values: list[dict[str, Any]] = [{}, {"as_int": rng.randrange(-5, 5)}]
        values += [{"as_double": value} for value in (0.0, 1.5, -2.25, float("nan"), float("inf"))]
        point.MergeFrom(type(point)(**rng.choice(values)))
        return
    point.count = rng.randrange(100)
    if kind == "summary" or rng.random() < 0.8:
        point.sum = rng.choice([0.0, 12.5])
    {"summary": _add_quantiles, "histogram": _add_buckets}.get(kind, _add_scale)(rng, point)


def _add_quantiles(rng: random.Random, point: Any) -> None:
    for quantile in rng.sample([0.0, 0.5, 0.999, 1.0], rng.randrange(5)):
        point.quantile_values.add(quantile=quantile, value=rng.random())


def _add_buckets(rng: random.Random, point: Any) -> None:
    if rng.random() < 0.8:
        point.explicit_bounds.extend(sorted(rng.sample([0.005, 0.25, 1.0, 2500.0], rng.randrange(5))))
        point.bucket_counts.extend(rng.randrange(9) for _ in range(len(point.explicit_bounds) + 1))


def _add_scale(rng: random.Random, point: Any) -> None:
    point.scale = rng.randrange(-4, 13)
    point.zero_count = rng.randrange(3)
    point.zero_threshold = rng.choice([0.0, 0.5])
    for side in (point.positive, point.negative):
        if rng.random() < 0.7:
            side.offset = rng.randrange(-2000, 2000)
            side.bucket_counts.extend(rng.randrange(5) for _ in range(rng.randrange(40)))


def _batch(request: Any, tenant: str | None = None) -> TelemetryBatch:
    return decode(request.SerializeToString(), Signal.METRICS, tenant=tenant)


@pytest.mark.parametrize("seed", range(12))
def test_equals_a_translation_point_by_point(seed: int) -> None:
    """One translator over several batches, so that what it remembers is right for the next, too."""
    rng = random.Random(seed)
    translator = Translator(LabelSettings())
    seen: set[Any] = set()
    for _ in range(4):
        request = _random_request(rng)
        batch, refused = acceptable(_batch(request))
        assert not refused
        got, want = read(translator.request(batch).body), expected(request)
        # Of a point without a value every series that was ever seen ends: more than the point itself names.
        more = {labels for labels in got.keys() - want.keys() if all(value == "stale" for _, value in got[labels])}
        assert more <= seen
        assert {labels: values for labels, values in got.items() if labels not in more} == want
        seen |= got.keys()


def test_a_stale_histogram_ends_its_buckets() -> None:
    """The point itself has none any more; Prometheus would show the old ones for five minutes."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="h")
    metric.histogram.aggregation_temporality = CUMULATIVE
    point = metric.histogram.data_points.add(time_unix_nano=T0_NANO, count=3, sum=1, explicit_bounds=[1, 2])
    point.bucket_counts.extend([1, 1, 1])
    translator = Translator(LabelSettings())
    first = read(translator.request(_batch(request)).body)
    del metric.histogram.data_points[:]
    metric.histogram.data_points.add(time_unix_nano=T0_NANO + 10**9, flags=1)
    second = read(translator.request(_batch(request)).body)
    assert first.keys() == second.keys()
    assert {value for entries in second.values() for _, value in entries} == {"stale"}


def test_names_and_labels() -> None:
    """Tenant, promoted attributes of the resource, labels for all; none where they are switched off."""
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    for key, value in (("service.name", "shop"), ("k8s.pod.name", "p1"), ("host.name", "h")):
        of_resource.resource.attributes.add(key=key).value.string_value = value
    of_scope = of_resource.scope_metrics.add()
    of_scope.scope.name = "lib"
    of_scope.metrics.add(name="temp", unit="Cel").gauge.data_points.add(time_unix_nano=T0_NANO, as_int=20)
    settings = LabelSettings(resource_labels=("k8s.pod.name",), external_labels={"cluster": "eu"})
    (labels,) = read(Translator(settings).request(_batch(request, "acme")).body)
    assert dict(labels) == {
        "__name__": "temp_celsius",
        "cluster": "eu",
        "job": "shop",
        "k8s_pod_name": "p1",
        "otel_scope_name": "lib",
        "tenant": "acme",
    }
    bare = LabelSettings(tenant_label=None, scope_labels=False, add_metric_suffixes=False)
    (labels,) = read(Translator(bare).request(_batch(request, "acme")).body)
    assert dict(labels) == {"__name__": "temp", "job": "shop"}


def test_target_info_once_a_minute_and_families_once() -> None:
    """In a request of its own, again after a minute of the data's time, or when the last one did not arrive."""
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    for key, value in (("service.name", "shop"), ("host.name", "h")):
        of_resource.resource.attributes.add(key=key).value.string_value = value
    metric = of_resource.scope_metrics.add().metrics.add(name="calls", unit="{call}", description="Calls.")
    metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, CUMULATIVE
    point = metric.sum.data_points.add(time_unix_nano=T0_NANO, as_int=1)
    translator = Translator(LabelSettings())
    info = translator.request(_batch(request)).info
    assert info is not None
    (series,) = WriteRequest.FromString(info).timeseries
    assert {label.name: label.value for label in series.labels} == {
        "__name__": "target_info",
        "host_name": "h",
        "job": "shop",
    }
    assert [(s.value, s.timestamp) for s in series.samples] == [(1.0, T0_NANO // 10**6)]
    (family,) = WriteRequest.FromString(info).metadata
    assert (family.type, family.metric_family_name, family.help) == (1, "calls_total", "Calls.")
    point.time_unix_nano += 59 * 10**9
    assert translator.request(_batch(request)).info is None
    translator.forget_info()
    assert translator.request(_batch(request)).info is not None
    point.time_unix_nano += 60 * 10**9
    again = translator.request(_batch(request)).info
    assert again is not None
    assert not WriteRequest.FromString(again).metadata
    assert Translator(LabelSettings(), target_info=False).request(_batch(request)).info is None


def test_exemplars_of_counters_and_buckets() -> None:
    """Each at the series it is of, with its trace; attributes unless they make it too long; none of a gauge."""
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    histogram = metrics.add(name="h").histogram
    histogram.aggregation_temporality = CUMULATIVE
    of_histogram = histogram.data_points.add(
        time_unix_nano=T0_NANO, count=3, explicit_bounds=[1, 2], bucket_counts=[1, 1, 1]
    )
    counter = metrics.add(name="c").sum
    counter.aggregation_temporality, counter.is_monotonic = CUMULATIVE, True
    of_counter = counter.data_points.add(time_unix_nano=T0_NANO, as_int=1)
    of_gauge = metrics.add(name="g").gauge.data_points.add(time_unix_nano=T0_NANO, as_int=1)
    for point, value in (
        (of_histogram, 2.0),
        (of_histogram, 0.5),
        (of_histogram, 7.0),
        (of_counter, 1.0),
        (of_gauge, 1),
    ):
        exemplar = point.exemplars.add(
            time_unix_nano=T0_NANO, as_double=value, trace_id=b"\x01" * 16, span_id=b"\xab" * 8
        )
        long = "x" * 100 if value == 7.0 else "x"
        exemplar.filtered_attributes.add(key="user").value.string_value = long
    of_counter.exemplars.add(time_unix_nano=T0_NANO + 10**9, as_int=4)
    found = {}
    for series in WriteRequest.FromString(Translator(LabelSettings()).request(_batch(request)).body).timeseries:
        labels = {label.name: label.value for label in series.labels}
        place = labels["__name__"], labels.get("le")
        found[place] = [(e.value, {la.name: la.value for la in e.labels}) for e in series.exemplars]
    ids = {"trace_id": "01" * 16, "span_id": "ab" * 8}
    assert {place: of for place, of in found.items() if of} == {
        ("h_bucket", "1"): [(0.5, ids | {"user": "x"})],
        ("h_bucket", "2"): [(2.0, ids | {"user": "x"})],
        ("h_bucket", "+Inf"): [(7.0, ids)],
        ("c_total", None): [(1.0, ids | {"user": "x"}), (4.0, {})],
    }


def test_what_prometheus_has_no_form_for() -> None:
    """Delta points, and exponential histograms that are too coarse, are told apart with the reason."""
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    for temporality in (DELTA, CUMULATIVE):
        for kind in ("sum", "histogram", "exponential_histogram"):
            data = getattr(metrics.add(name=f"{kind}{int(temporality)}"), kind)
            data.aggregation_temporality = temporality
            data.data_points.add(time_unix_nano=T0_NANO)
    coarse = metrics.add(name="coarse").exponential_histogram
    coarse.aggregation_temporality = CUMULATIVE
    coarse.data_points.add(time_unix_nano=T0_NANO, scale=-5)
    fits, refused = acceptable(_batch(request))
    assert fits.records["name"].to_pylist() == ["sum2", "histogram2", "exponential_histogram2"]
    assert [(r.reason, r.batch.num_rows) for r in refused] == [
        ("delta temporality", 3),
        ("exponential histogram below scale -4", 1),
    ]


def test_points_of_one_series_and_time_are_counted() -> None:
    """Only one of them can be sent: the last; two resources that look alike are such a case."""
    request = ExportMetricsServiceRequest()
    for host, value in (("a", 1), ("b", 2)):
        of_resource = request.resource_metrics.add()
        of_resource.resource.attributes.add(key="host.name").value.string_value = host
        point = of_resource.scope_metrics.add().metrics.add(name="g").gauge.data_points.add(time_unix_nano=T0_NANO)
        point.as_int = value
    made = Translator(LabelSettings(tenant_label=None)).request(_batch(request))
    assert list(read(made.body).values()) == [[(T0_NANO // 10**6, 2.0)]]
    assert made.overwritten == 1


def test_the_memory_of_series_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is full it is emptied, and the next request is as right as any."""
    monkeypatch.setattr("connectors.prometheus.series_labels._MOST_SERIES", 50)
    series = SeriesLabels(LabelSettings())
    translator = Translator(LabelSettings())
    for round_ in range(4):
        request = ExportMetricsServiceRequest()
        metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="g")
        for number in range(40):
            point = metric.gauge.data_points.add(time_unix_nano=T0_NANO, as_int=number)
            point.attributes.add(key="n").value.int_value = 20 * round_ + number
        batch = _batch(request)
        assert read(translator.request(batch).body) == expected(request)
        assert len(np.unique(series.slots(batch))) == 40
    assert series.generation > 1


def test_the_memory_of_families_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who brings new metric names without end is described anew; the samples stay right."""
    monkeypatch.setattr("connectors.prometheus.remote_write._MOST_FAMILIES", 50)
    translator = Translator(LabelSettings())
    for round_ in range(4):
        request = ExportMetricsServiceRequest()
        for number in range(40):
            metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=f"g{40 * round_ + number}")
            metric.gauge.data_points.add(time_unix_nano=T0_NANO, as_int=number)
        assert read(translator.request(_batch(request)).body) == expected(request)
        assert len(translator._told_families) <= 80


def test_nothing_of_nothing() -> None:
    """A batch without values is no request at all."""
    request = ExportMetricsServiceRequest()
    request.resource_metrics.add().scope_metrics.add().metrics.add(name="g").gauge.data_points.add(time_unix_nano=1)
    assert Translator(LabelSettings(), target_info=False).request(_batch(request)).body == b""
