"""span_metrics, the kernel: equal to counting span by span, for any disorder, cut, option and interruption."""

from __future__ import annotations

import collections
import itertools
import json
import pickle
import random
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2
from pydantic import ValidationError

from operators.span_metrics import Dimension, SpanMetrics, SpanMetricsSettings
from telflow.batch import TelemetryBatch
from telflow.codec import encode
from telflow.schema import MetricType, Signal
from telflow.span_metrics import SpanPart, SpanReader
from telflow.window_logic import Update
from tests.spans import EPOCH, SECOND, Span, points, spans_batch
from tests.strategies import thorough

NOW = EPOCH + 3600 * SECOND
BOUNDS = (timedelta(milliseconds=1), timedelta(milliseconds=100), timedelta(seconds=1))
BOUNDS_NANO = [1_000_000, 100_000_000, SECOND]
Key: TypeAlias = tuple[tuple[str, str, Any], ...]
Point: TypeAlias = tuple[str | None, Key, int, int]


def _settings(**options: Any) -> SpanMetricsSettings:
    return SpanMetricsSettings.model_validate(
        {"window": "10s", "lateness": "5s", "max_ahead": "60s", "temporality": "delta", "buckets": BOUNDS, **options}
    )


class _Reference:
    """Counts span by span, in dictionaries."""

    def __init__(self, settings: SpanMetricsSettings) -> None:
        self.settings = settings
        self.length, self.lateness, self.max_ahead, self.expiry = (
            round(d.total_seconds()) * SECOND
            for d in (settings.window, settings.lateness, settings.max_ahead, settings.series_expiry or timedelta.max)
        )
        self.high, self.watermark = 0, 0
        self.known: set[tuple[str | None, Key]] = set()
        self.open: dict[int, dict[tuple[str | None, Key], list[int]]] = {}
        self.since: dict[tuple[str | None, Key], int] = {}
        self.last: dict[tuple[str | None, Key], int] = {}
        self.totals: dict[tuple[str | None, Key], list[int]] = {}
        self.points: dict[Point, Any] = {}
        self.refused: collections.Counter[tuple[str, str | None]] = collections.Counter()

    def add(self, spans: Sequence[Span]) -> None:
        for span in spans:
            self._span(span)
        self.close(self.watermark)

    def _span(self, span: Span) -> None:
        if span.end > NOW + self.max_ahead:
            self.refused["ahead of clock", span.tenant] += 1
            return
        self.high = max(self.high, span.end)
        self.watermark = max(self.watermark, min(self.high, NOW) - self.lateness)
        start = span.end - span.end % self.length
        if start + self.length <= self.watermark:
            self.refused["late", span.tenant] += 1
            return
        durations = self.open.setdefault(start, {}).setdefault((span.tenant, self._key(span)), [])
        durations.append(max(0, span.duration))

    def _key(self, span: Span) -> Key:
        key: dict[str, Any] = {
            "service.name": span.service if span.service is not None else "unknown_service",
            "span.name": span.name,
            "span.kind": trace_pb2.Span.SpanKind.Name(span.kind),  # type: ignore[arg-type]
            "status.code": trace_pb2.Status.StatusCode.Name(span.status or 0),  # type: ignore[arg-type]
        }
        for d in self.settings.dimensions:
            places = {"any": (span.attributes, span.resource_attributes), "span": (span.attributes,)}
            for place in places.get(d.source, (span.resource_attributes,)):
                if d.name in place:
                    key[d.name] = place[d.name]
                    break
            else:
                if d.default is not None:
                    key[d.name] = d.default
        found = tuple((name, type(value).__name__, value) for name, value in sorted(key.items()))
        known = sum(k[1] != _OVERFLOW for k in self.known)
        if (span.tenant, found) not in self.known and known >= self.settings.max_series:
            found = _OVERFLOW
        self.known.add((span.tenant, found))
        return found

    def close(self, watermark: int) -> None:
        closing = sorted(start for start in self.open if start + self.length <= watermark)
        for start in closing:
            self._close(start, self.open.pop(start))
        if closing:
            horizon = max(self.last.values()) - self.expiry
            waiting = {key for window in self.open.values() for key in window}
            for key in [k for k, last in self.last.items() if last <= horizon and k not in waiting]:
                del self.since[key], self.last[key]
                self.totals.pop(key, None)
                self.known.discard(key)

    def _close(self, start: int, window: dict[tuple[str | None, Key], list[int]]) -> None:
        end = start + self.length
        for key, durations in window.items():
            if self.last.get(key, start) <= start - self.expiry:
                del self.since[key], self.totals[key]
            self.since.setdefault(key, start)
            self.last[key] = end
            self.totals.setdefault(key, []).extend(durations)
        if self.settings.temporality == "delta":
            for key, durations in window.items():
                self.points[*key, start, end] = _summary(durations)
            return
        for key, durations in self.totals.items():
            if self.last[key] > end - self.expiry:
                self.points[*key, self.since[key], end] = _summary(durations)


_OVERFLOW: Any = (("otel.metric.overflow", "bool", True),)


def _summary(durations: Iterable[int]) -> Any:
    durations = sorted(durations)
    edges = [-1, *BOUNDS_NANO, 2**70]
    buckets = [sum(low < d <= high for d in durations) for low, high in itertools.pairwise(edges)]
    seconds = [x / 1e9 for x in (sum(durations), durations[0], durations[-1])]
    return len(durations), *seconds, buckets


def _read(batches: Iterable[TelemetryBatch]) -> dict[Point, Any]:
    """The kernel's points in the reference's form; calls and duration must tell the same."""
    calls: dict[Point, int] = {}
    durations: dict[Point, Any] = {}
    for p in points(batches):
        assert p["resource"] == (
            {} if "service.name" not in p["attributes"] else {"service.name": p["attributes"]["service.name"]}
        )
        attributes = tuple((name, type(value).__name__, value) for name, value in sorted(p["attributes"].items()))
        key = (p["tenant"], attributes, p["start_time_unix_nano"], p["time_unix_nano"])
        if p["type"] == MetricType.SUM:
            assert (p["name"], p["unit"], p["is_monotonic"]) == ("traces.span.metrics.calls", "{call}", True)
            assert key not in calls
            calls[key] = p["value_int"]
        else:
            assert (p["name"], p["type"]) == ("traces.span.metrics.duration", MetricType.HISTOGRAM)
            assert p["explicit_bounds"] == [b / 1e9 for b in BOUNDS_NANO]
            assert p["count"] == sum(p["bucket_counts"])
            assert key not in durations
            durations[key] = (p["count"], p["sum"], p["min"], p["max"], p["bucket_counts"])
    assert calls == {key: value[0] for key, value in durations.items()}
    return durations


_spans = st.builds(
    Span,
    end=st.one_of(
        st.integers(0, 30).map(lambda s: EPOCH + s * SECOND),
        st.integers(0, 200 * SECOND).map(lambda n: EPOCH + n),
        st.just(NOW + 61 * SECOND),
    ),
    duration=st.sampled_from([-5, 0, 1, 1_000_000, 1_000_001, 99_999_999, SECOND, 60 * SECOND]),
    name=st.sampled_from(["GET /", "POST /", "ждать", ""]),
    service=st.sampled_from(["shop", "cart", None]),
    tenant=st.sampled_from(["acme", "umbrella", None]),
    kind=st.integers(0, 5),
    status=st.sampled_from([None, 0, 1, 2]),
    attributes=st.dictionaries(
        st.sampled_from(["http.route", "region"]), st.sampled_from(["/", "eu", 1, True, 2.5]), max_size=2
    ),
    resource_attributes=st.dictionaries(
        st.sampled_from(["region", "zone"]), st.sampled_from(["eu", "us", 1]), max_size=2
    ),
)
_options = st.fixed_dictionaries(
    {
        "temporality": st.sampled_from(["delta", "cumulative"]),
        "max_series": st.sampled_from([1, 4, 10_000]),
        "series_expiry": st.sampled_from(["10s", "40s", "15m"]),
        "dimensions": st.sampled_from(
            [
                (),
                (Dimension(name="region"),),
                (
                    Dimension(name="region", source="span", default="none"),
                    Dimension(name="zone", source="resource"),
                    Dimension(name="http.route", source="any", default=7),
                ),
            ]
        ),
    }
)


@thorough(60)
@given(
    options=_options,
    late=st.sampled_from(["drop", "side_output"]),
    stream=st.lists(st.tuples(st.lists(_spans, max_size=12), st.booleans(), st.booleans()), max_size=6),
)
def test_equal_to_counting_span_by_span(
    options: dict[str, Any], late: str, stream: list[tuple[list[Span], bool, bool]]
) -> None:
    """Every point of every window is that of the slow reference, also when interrupted and resumed in between.

    So it is when spans come from another process, as partial aggregates.
    """
    settings = _settings(late=late, **options)
    reference, kernel = _Reference(settings), SpanMetrics(settings)
    got: list[TelemetryBatch] = []
    refused: collections.Counter[tuple[str, str | None]] = collections.Counter()
    for spans, interrupt, crosses in stream:
        part = SpanPart(spans_batch(spans), SpanReader(settings), NOW)
        update = kernel.add(pickle.loads(pickle.dumps(part)) if crosses and spans else part, NOW)  # noqa: S301
        got += update.metrics
        refused += _refused(update)
        reference.add(spans)
        if interrupt:
            state = pickle.loads(pickle.dumps(kernel.state()))  # noqa: S301
            kernel = SpanMetrics(settings)
            assert kernel.restore(state) == Update()
    got += kernel.flush().metrics
    reference.close(2**70)
    assert _read(got) == reference.points
    assert refused == reference.refused


def _refused(update: Update) -> collections.Counter[tuple[str, str | None]]:
    """Spans that do not count, by reason and owner, whether they are still there or not."""
    found = collections.Counter[tuple[str, str | None]]()
    for refused in update.refused:
        found[refused.reason, refused.tenant] += refused.count
    for batch, reason in ((update.late, "late"), (update.ahead, "ahead of clock")):
        if batch is not None:
            found.update((reason, tenant) for tenant in batch.tenants().to_pylist())
    return found


def test_what_crosses_grows_with_the_series_and_not_with_the_spans() -> None:
    """Both passes of a pickling are the same bytes, and ten times the spans are about as many."""
    sizes = []
    for count in (200, 2000):
        spans = [Span(EPOCH + n % 7 * SECOND, name=f"span {n % 20}") for n in range(count)]
        part = SpanPart(spans_batch(spans), SpanReader(_settings()), NOW)
        payload = pickle.dumps(part)
        assert pickle.dumps(part) == payload
        sizes.append(len(payload))
    assert sizes[1] < sizes[0] + 100


def test_errors_rate_and_duration_of_one_series() -> None:
    """The example a dashboard is built on, spelt out."""
    kernel = SpanMetrics(_settings())
    spans = [Span(EPOCH + n * SECOND, duration=n * 100_000_000, status=2 if n == 3 else None) for n in range(1, 5)]
    assert kernel.add(spans_batch(spans), NOW) == Update()
    (batch,) = kernel.flush().metrics
    assert batch.scopes.to_pylist()[0]["name"] == "telflow.operators.span_metrics"
    calls = {p["attributes"]["status.code"]: p["value_int"] for p in points([batch]) if p["name"].endswith("calls")}
    assert calls == {"STATUS_CODE_UNSET": 3, "STATUS_CODE_ERROR": 1}
    (duration,) = [p for p in points([batch]) if p["count"] == 3]
    assert duration["attributes"] == {
        "service.name": "shop",
        "span.name": "GET /",
        "span.kind": "SPAN_KIND_SERVER",
        "status.code": "STATUS_CODE_UNSET",
    }
    assert (duration["unit"], duration["sum"], duration["min"], duration["max"]) == ("s", 0.7, 0.1, 0.4)
    assert duration["bucket_counts"] == [0, 1, 2, 0]
    assert (duration["start_time_unix_nano"], duration["time_unix_nano"]) == (EPOCH, EPOCH + 10 * SECOND)
    assert {p["aggregation_temporality"] for p in points([batch])} == {1}


@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
def test_the_result_is_valid_otlp(temporality: str) -> None:
    """The official library reads the export, and it obeys the metrics data model, overflow series included."""
    rng = random.Random(3)
    kernel = SpanMetrics(_settings(temporality=temporality, max_series=30, dimensions=(Dimension(name="region"),)))
    spans = [
        Span(
            EPOCH + second * SECOND,
            duration=rng.randrange(2 * SECOND),
            name=rng.choice("abcdef"),
            service=rng.choice(["shop", "cart", None]),
            tenant=rng.choice(["acme", "umbrella"]),
            status=rng.choice([None, 2]),
            attributes=rng.choice([{}, {"region": "eu"}, {"region": 7}]),
        )
        for second in range(60)
        for _ in range(10)
    ]
    batches = [*kernel.add(spans_batch(spans), NOW).metrics, *kernel.flush().metrics]
    assert len(batches) == 6
    for batch in batches:
        request = ExportMetricsServiceRequest.FromString(encode(batch))
        resources = [r.SerializeToString() for r in (m.resource for m in request.resource_metrics)]
        # The tenant is not part of the export: two tenants may have a resource each that looks the same.
        assert max(resources.count(r) for r in resources) <= 2
        for in_resource in request.resource_metrics:
            (in_scope,) = in_resource.scope_metrics
            names = [metric.name for metric in in_scope.metrics]
            assert names == ["traces.span.metrics.calls", "traces.span.metrics.duration"]
            calls_points, duration_points = (
                in_scope.metrics[0].sum.data_points,
                in_scope.metrics[1].histogram.data_points,
            )
            identities = [
                [sorted(a.SerializeToString() for a in p.attributes) for p in ps]
                for ps in (calls_points, duration_points)
            ]
            assert identities[0] == identities[1]
            assert all(identities[0].count(one) == 1 for one in identities[0])
            for call, duration in zip(calls_points, duration_points, strict=True):
                assert call.start_time_unix_nano < call.time_unix_nano
                assert call.time_unix_nano == duration.time_unix_nano
                assert call.as_int == duration.count == sum(duration.bucket_counts)
                assert len(duration.bucket_counts) == len(duration.explicit_bounds) + 1
                assert duration.min <= duration.sum / duration.count <= duration.max
        calls = sum(p.as_int for r in request.resource_metrics for p in r.scope_metrics[0].metrics[0].sum.data_points)
        if temporality == "delta":
            assert calls == 100
    assert temporality == "delta" or calls == 600


def test_milliseconds_and_another_namespace() -> None:
    """What older dashboards of the Collector's connector expect."""
    kernel = SpanMetrics(_settings(unit="ms", namespace="", temporality="cumulative"))
    kernel.add(spans_batch([Span(EPOCH, duration=1_500_000)]), NOW)
    calls, duration = points(kernel.flush().metrics)
    assert (calls["name"], duration["name"], duration["unit"]) == ("calls", "duration", "ms")
    assert (duration["sum"], duration["explicit_bounds"]) == (1.5, [1.0, 100.0, 1000.0])
    assert duration["aggregation_temporality"] == 2


def test_enum_numbers_without_a_name_stay_apart() -> None:
    """Open enums: a kind or status of a later protocol version is a series of its own."""
    kernel = SpanMetrics(_settings())
    kernel.add(spans_batch([Span(EPOCH, kind=77, status=-3)]), NOW)
    attributes = points(kernel.flush().metrics)[0]["attributes"]
    assert (attributes["span.kind"], attributes["status.code"]) == ("77", "-3")


def test_other_signals_change_nothing() -> None:
    """Metrics and logs pass by, and so do empty batches."""
    kernel = SpanMetrics(_settings())
    before = repr(kernel.state())
    for signal in Signal:
        assert kernel.add(TelemetryBatch.empty(signal), NOW) == Update()
    assert repr(kernel.state()) == before
    assert kernel.due_unix_nano() is None


def test_late_spans_are_handed_back_whole() -> None:
    """The spans refused are those that came in, with all their columns."""
    kernel = SpanMetrics(_settings(late="side_output"))
    late, ahead = Span(EPOCH + SECOND, name="late"), Span(NOW + 61 * SECOND, name="ahead")
    update = kernel.add(spans_batch([Span(EPOCH + 20 * SECOND), late, ahead]), NOW)
    assert update.late is not None
    assert update.ahead is not None
    assert update.late.records.to_pylist() == spans_batch([late]).records.to_pylist()
    assert update.ahead.records["name"].to_pylist() == ["ahead"]


def test_an_overflowing_tenant_does_not_hide_another() -> None:
    """Each tenant overflows into its own series, and the total number of calls stays right."""
    kernel = SpanMetrics(_settings(max_series=2))
    spans = [Span(EPOCH, name=f"span {n}", tenant="ab"[n % 2]) for n in range(10)]
    kernel.add(spans_batch(spans), NOW)
    calls = [p for p in points(kernel.flush().metrics) if p["name"].endswith("calls")]
    assert sum(p["value_int"] for p in calls) == 10
    assert [(p["tenant"], p["value_int"]) for p in calls if "otel.metric.overflow" in p["attributes"]] == [
        ("a", 4),
        ("b", 4),
    ]


def test_a_cumulative_series_that_comes_back_starts_anew() -> None:
    """After its expiry a series has a new start time and counts from zero; others are repeated meanwhile."""
    kernel = SpanMetrics(_settings(temporality="cumulative", series_expiry="20s"))
    for second in (0, 10, 20, 30, 40, 50, 60):
        names = ["steady"] if second in {10, 20, 30, 40, 50} else ["steady", "rare"]
        kernel.add(spans_batch([Span(EPOCH + second * SECOND, name=name) for name in names]), NOW)
        got = kernel.flush().metrics
        rare = [
            (p["start_time_unix_nano"] - EPOCH, p["value_int"])
            for p in points(got)
            if p["name"].endswith("calls") and p["attributes"]["span.name"] == "rare"
        ]
        assert rare == {0: [(0, 1)], 10: [(0, 1)], 60: [(60 * SECOND, 1)]}.get(second, [])


def test_the_state_is_plain_data() -> None:
    """Numbers, text, lists, dicts and numpy arrays: a snapshot outlives the classes of this version."""
    kernel = SpanMetrics(_settings(dimensions=(Dimension(name="region", default=1.5),)))
    kernel.add(spans_batch([Span(EPOCH, tenant=None)]), NOW)
    state = kernel.state()
    text = json.dumps(
        state, default=lambda value: value.tolist() if type(value).__module__ == "numpy" else value.decode()
    )
    assert json.loads(text)["version"] == 3
    kernel.add(spans_batch([Span(EPOCH, name="another")]), NOW)
    assert json.dumps(state, default=lambda v: v.tolist() if type(v).__module__ == "numpy" else v.decode()) == text


def test_changed_windows_close_under_their_old_options() -> None:
    """New buckets between two runs lose nothing: what was counted comes out with the old ones, then the new count."""
    old = SpanMetrics(_settings())
    old.add(spans_batch([Span(EPOCH), Span(EPOCH + SECOND)]), NOW)
    new = SpanMetrics(_settings(buckets=["2s"]))
    update = new.restore(old.state())
    assert next(p["value_int"] for p in points(update.metrics)) == 2
    refused = new.add(spans_batch([Span(EPOCH + 2 * SECOND), Span(EPOCH - 3600 * SECOND)]), NOW).refused
    assert [(found.reason, found.count) for found in refused] == [("late", 1)]
    calls, duration = points(new.flush().metrics)
    assert (calls["value_int"], duration["bucket_counts"]) == (1, [1, 0])


def test_options_that_shape_no_window_may_change() -> None:
    """Lateness, names and limits apply from the next run on, with the state kept."""
    old = SpanMetrics(_settings())
    old.add(spans_batch([Span(EPOCH)]), NOW)
    new = SpanMetrics(_settings(lateness="1s", namespace="red", max_series=1))
    assert new.restore(old.state()) == Update()
    assert points(new.flush().metrics)[0]["name"] == "red.calls"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buckets": ["2s", "1s"]}, "ascending bounds above 0"),
        ({"buckets": ["0s"]}, "ascending bounds above 0"),
        ({"window": "10us"}, "window: expected at least 1ms"),
        ({"lateness": timedelta(seconds=-1)}, "lateness: expected at least 0"),
        ({"series_expiry": "1s"}, "series_expiry: expected at least one window"),
        ({"dimensions": [{"name": "span.name"}]}, "attribute of span metrics already"),
        ({"dimensions": [{"name": "a"}, {"name": "a"}]}, "listed more than once"),
        ({"max_series": 0}, "greater than or equal to 1"),
        ({"windwo": "1s"}, "Extra inputs"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    """Each mistake is named."""
    with pytest.raises(ValidationError, match=message):
        _settings(**options)
