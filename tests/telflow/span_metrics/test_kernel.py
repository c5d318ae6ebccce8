"""Span metrics with every option: as a reference that reads the official library's messages span by span."""

from __future__ import annotations

import fnmatch
import itertools
import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from telflow import codec
from telflow.batch import TelemetryBatch
from telflow.errors import BatchError
from telflow.schema import Signal
from telflow.span_metrics import SpanMetrics, SpanMetricsSettings, SpanPart, SpanReader
from telflow.window_logic import Update
from tests.aggregation_reference import exponential
from tests.batches import key_value
from tests.countable import Attributes, told
from tests.spans import EPOCH, SECOND, Span, points, spans_batch
from tests.strategies import thorough

NOW = EPOCH + 3600 * SECOND
BOUNDS = [0.25, 1.0]
Place: TypeAlias = tuple[str, Attributes, Attributes, int, int]
"""Metric, resource, attributes, start, end."""


@dataclass(frozen=True)
class Row:
    """A span, flat."""

    number: int
    end: int
    duration: int
    name: str
    traced: bool
    scope: tuple[str, str]
    resource: dict[str, Any]
    attributes: dict[str, Any]
    events: list[dict[str, Any]]

    @property
    def trace_id(self) -> bytes:
        return (self.number + 1).to_bytes(16, "big") if self.traced else b""

    @property
    def span_id(self) -> bytes:
        return (self.number + 1).to_bytes(8, "little")


def batch_of(rows: Sequence[Row]) -> TelemetryBatch:
    """The spans, in their order, as they come in OTLP."""
    request = ExportTraceServiceRequest()
    for row in rows:
        of_resource = request.resource_spans.add()
        of_resource.resource.attributes.extend(key_value(*item) for item in row.resource.items())
        scope = of_resource.scope_spans.add()
        scope.scope.name, scope.scope.version = row.scope
        span = scope.spans.add(
            name=row.name,
            kind=2,
            trace_id=row.trace_id,
            span_id=row.span_id,
            start_time_unix_nano=row.end - row.duration,
            end_time_unix_nano=row.end,
        )
        span.attributes.extend(key_value(*item) for item in row.attributes.items())
        for event in row.events:
            span.events.add(name="e").attributes.extend(key_value(*item) for item in event.items())
    return codec.decode(request.SerializeToString(), Signal.TRACES, tenant="acme")


class _Reference:
    """Points of all windows, from all spans; nothing is late, no series expires."""

    def __init__(self, settings: SpanMetricsSettings, rows: Sequence[Row]) -> None:
        self.settings = settings
        self.found: dict[Place, list[Row]] = {}
        windows = sorted({row.end // (10 * SECOND) * 10 * SECOND for row in rows})
        since: dict[tuple[str, Attributes, Attributes], int] = {}
        totals: dict[tuple[str, Attributes, Attributes], list[Row]] = {}
        for start in windows:
            inside = [row for row in rows if start <= row.end < start + 10 * SECOND]
            current: dict[tuple[str, Attributes, Attributes], list[Row]] = {}
            for row in inside:
                for series in self._series(row):
                    current.setdefault(series, []).append(row)
            if settings.temporality == "delta":
                self.found |= {(*series, start, start + 10 * SECOND): found for series, found in current.items()}
                continue
            for series, found in current.items():
                since.setdefault(series, start)
                totals.setdefault(series, []).extend(found)
            for series, all_rows in totals.items():
                self.found[*series, since[series], start + 10 * SECOND] = list(all_rows)

    def _series(self, row: Row) -> list[tuple[str, Attributes, Attributes]]:
        s = self.settings
        service = row.resource.get("service.name", "unknown_service")
        own = {
            "service.name": service,
            "span.name": row.name,
            "span.kind": "SPAN_KIND_SERVER",
            "status.code": "STATUS_CODE_UNSET",
        }
        own = {name: value for name, value in own.items() if name not in s.exclude_dimensions}
        name, version = row.scope
        if name and any(fnmatch.fnmatchcase(name, glob) for glob in s.include_instrumentation_scope):
            own["span.instrumentation.scope.name"] = name
            if version:
                own["span.instrumentation.scope.version"] = version
        resource: dict[str, Any] = {"service.name": service} if "service.name" in own else {}
        if s.resource_attributes:
            resource = {
                key: value
                for key, value in row.resource.items()
                if any(fnmatch.fnmatchcase(key, glob) for glob in s.resource_attributes)
            }
        found = []
        metrics = [("calls", s.calls_dimensions)]
        if s.histogram != "none":
            metrics.append(("duration", s.histogram_dimensions))
        for metric, dimensions in metrics:
            attributes = own | self._values([*s.dimensions, *dimensions], [row.attributes, row.resource])
            found.append((metric, told(resource), told(attributes)))
        for event in row.events if s.events is not None else []:
            assert s.events is not None
            attributes = own | self._values(s.dimensions, [row.attributes, row.resource])
            attributes |= self._values(s.events.dimensions, [event, row.attributes, row.resource])
            found.append(("events", told(resource), told(attributes)))
        return found

    @staticmethod
    def _values(dimensions: Sequence[Any], places: Sequence[dict[str, Any]]) -> dict[str, Any]:
        found = {}
        for dimension in dimensions:
            values = [place[dimension.name] for place in places if dimension.name in place]
            value = values[0] if values else dimension.default
            if value is not None:
                found[dimension.name] = value
        return found

    def points(self) -> dict[Place, Any]:
        return {place: self._summary(place[0], rows) for place, rows in self.found.items()}

    def _summary(self, metric: str, rows: Sequence[Row]) -> Any:
        if metric != "duration":
            return len(rows)
        per_unit = {"s": 1e9, "ms": 1e6}[self.settings.unit]
        nanos = [row.duration for row in rows]
        values = [nano / per_unit for nano in nanos]
        summary = (len(rows), sum(nanos) / per_unit, min(values), max(values))
        if self.settings.histogram == "exponential":
            return (*summary, exponential(values, self.settings.max_size))
        edges = [-math.inf, *(bound * 1e9 for bound in BOUNDS), math.inf]
        return (*summary, [sum(low < nano <= high for nano in nanos) for low, high in itertools.pairwise(edges)])


def _read(batches: Sequence[TelemetryBatch]) -> dict[Place, Any]:
    found: dict[Place, Any] = {}
    for p in points(batches):
        name = p["name"].removeprefix("traces.span.metrics.")
        times = (p["start_time_unix_nano"], p["time_unix_nano"])
        place = (name, told(p["resource"]), told(p["attributes"]), *times)
        assert place not in found
        if name != "duration":
            found[place] = p["value_int"]
            continue
        told_of = (p["count"], p["sum"], p["min"], p["max"])
        if p["bucket_counts"] is not None:
            found[place] = (*told_of, p["bucket_counts"])
        else:
            exponential_of = {key: p[key] for key in ("scale", "zero_count", "positive", "negative")}
            found[place] = (*told_of, exponential_of)
    return found


_dimension: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"name": "region"}, {"name": "route", "default": "none"}, {"name": "code", "default": 7}]
)
_dimensions = st.lists(_dimension, max_size=2, unique_by=lambda d: d["name"])
_own = st.sampled_from(["service.name", "span.name", "span.kind", "status.code"])


@st.composite
def _options(draw: st.DrawFn) -> dict[str, Any]:
    names = ["region", "route", "code"]
    shared = draw(_dimensions)
    rest: list[dict[str, Any]] = [{"name": name} for name in names if name not in [d["name"] for d in shared]]
    some = st.lists(st.sampled_from(rest), max_size=2, unique_by=lambda d: d["name"]) if rest else st.just([])
    histogram = draw(st.sampled_from(["explicit", "exponential", "none"]))
    events = draw(some)
    return {
        "histogram": histogram,
        "max_size": draw(st.sampled_from([2, 160])),
        "unit": draw(st.sampled_from(["s", "ms"])),
        "temporality": draw(st.sampled_from(["delta", "cumulative"])),
        "dimensions": shared,
        "calls_dimensions": draw(some),
        "histogram_dimensions": draw(some) if histogram != "none" else [],
        "exclude_dimensions": draw(st.lists(_own, max_size=4, unique=True)),
        "include_instrumentation_scope": draw(st.sampled_from([[], ["lib*"], ["*"]])),
        "resource_attributes": draw(st.sampled_from([[], ["*"], ["service.*", "region"]])),
        "events": {"dimensions": events} if events else None,
        "exemplars": draw(st.sampled_from([None, {}, {"max_per_data_point": 1}])),
    }


_values = st.sampled_from(["eu", "us", "7", 7, True, 1.5])
_attributes = st.dictionaries(st.sampled_from(["region", "route", "code"]), _values, max_size=3)
_rows = st.builds(
    Row,
    number=st.just(0),
    end=st.one_of(
        st.integers(0, 40).map(lambda s: EPOCH + s * SECOND), st.integers(0, 40 * SECOND).map(lambda n: EPOCH + n)
    ),
    duration=st.sampled_from([0, 1, SECOND // 4, SECOND // 2, SECOND, 64 * SECOND]),
    name=st.sampled_from(["a", "b"]),
    traced=st.booleans(),
    scope=st.sampled_from([("", ""), ("lib", ""), ("lib", "1"), ("other", "2")]),
    resource=st.dictionaries(
        st.sampled_from(["service.name", "region", "host"]), st.sampled_from(["x", "y"]), max_size=3
    ),
    attributes=_attributes,
    events=st.lists(_attributes, max_size=2),
)
_stream = st.lists(st.tuples(st.lists(_rows, max_size=10), st.booleans(), st.booleans()), max_size=4)


def _settings(**options: Any) -> SpanMetricsSettings:
    base = {"window": "10s", "lateness": "1h", "series_expiry": None, "buckets": ["250ms", "1s"]}
    return SpanMetricsSettings.model_validate({**base, **options})


@thorough(60)
@given(options=_options(), stream=_stream)
def test_equal_to_counting_span_by_span(options: dict[str, Any], stream: list[tuple[list[Row], bool, bool]]) -> None:
    """Every metric and point, for every combination of options, interrupted, resumed and from other processes."""
    settings = _settings(**options)
    kernel = SpanMetrics(settings)
    rows: list[Row] = []
    made: list[TelemetryBatch] = []
    for drawn, interrupt, crosses in stream:
        numbered = [Row(**{**vars(row), "number": len(rows) + n}) for n, row in enumerate(drawn)]
        rows += numbered
        part = SpanPart(batch_of(numbered), SpanReader(settings), NOW)
        update = kernel.add(pickle.loads(pickle.dumps(part)) if crosses and numbered else part, NOW)  # noqa: S301
        assert update.refused == ()
        made += update.metrics
        if interrupt:
            state = pickle.loads(pickle.dumps(kernel.state()))  # noqa: S301
            kernel = SpanMetrics(settings)
            assert kernel.restore(state) == Update()
    made += kernel.flush().metrics
    reference = _Reference(settings, rows)
    assert _read(made) == reference.points()
    for batch in made:
        assert ExportMetricsServiceRequest.FromString(codec.encode(batch)).resource_metrics
    _check_exemplars(made, reference)


def _check_exemplars(made: Sequence[TelemetryBatch], reference: _Reference) -> None:
    """As many as there may be, of spans of this very series and window, with their own duration."""
    settings = reference.settings
    per_unit = {"s": 1e9, "ms": 1e6}[settings.unit]
    for p in points(made):
        name = p["name"].removeprefix("traces.span.metrics.")
        place = (name, told(p["resource"]), told(p["attributes"]), p["start_time_unix_nano"], p["time_unix_nano"])
        start = p["time_unix_nano"] - 10 * SECOND
        there = [row for row in reference.found[place] if row.traced and row.end >= start]
        expected = {(row.trace_id, row.span_id, row.end, row.duration / per_unit) for row in there}
        got = [(e["trace_id"], e["span_id"], e["time_unix_nano"], e["value_double"]) for e in p["exemplars"]]
        limit = settings.exemplars.max_per_data_point if settings.exemplars is not None else 0
        assert len(got) == min(limit, len(there))
        assert set(got) <= expected


def test_exemplars_do_not_depend_on_the_order_of_spans() -> None:
    """Live, replayed, and cut in other ways: the same few spans of many."""
    rows = [
        Row(n, EPOCH + n, SECOND + n, "a", traced=True, scope=("", ""), resource={}, attributes={}, events=[])
        for n in range(1000)
    ]
    drawn = []
    for order, size in ((rows, 1000), (rows[::-1], 7), (rows[500:] + rows[:500], 100)):
        kernel = SpanMetrics(_settings(exemplars={"max_per_data_point": 4}))
        for part in range(0, 1000, size):
            kernel.add(batch_of(order[part : part + size]), NOW)
        drawn.append([p["exemplars"] for p in points(kernel.flush().metrics)])
    assert drawn[0] == drawn[1] == drawn[2]
    assert [len(exemplars) for exemplars in drawn[0]] == [4, 4]


def test_events_are_repeated_in_windows_without_any() -> None:
    """Cumulative series do not vanish while there are spans, and close with them."""

    def row(second: int, *events: dict[str, Any]) -> Row:
        return Row(second, EPOCH + second * SECOND, 0, "a", False, ("", ""), {}, {}, list(events))

    kernel = SpanMetrics(_settings(events={"dimensions": [{"name": "kind"}]}, lateness="0s"))
    made = list(kernel.add(batch_of([row(0, {"kind": "x"})]), NOW).metrics)
    for second in (10, 20, 30):
        made += kernel.add(batch_of([row(second)]), NOW).metrics
    found = [
        (p["time_unix_nano"] - EPOCH, p["value_int"], p["attributes"].get("kind"))
        for p in points(made)
        if p["name"].endswith("events")
    ]
    assert found == [(10 * SECOND, 1, "x"), (20 * SECOND, 1, "x"), (30 * SECOND, 1, "x")]


def test_silence_closes_all_metrics_at_once() -> None:
    """Also that of events, when the last spans had none."""
    kernel = SpanMetrics(_settings(events={"dimensions": [{"name": "kind"}]}, temporality="delta", lateness="0s"))
    rows = [Row(0, EPOCH, 0, "a", False, ("", ""), {}, {}, [{"kind": "x"}])]
    kernel.add(batch_of(rows), NOW)
    kernel.add(batch_of([Row(**{**vars(rows[0]), "events": []})]), NOW + 5 * SECOND)
    due = kernel.due_unix_nano()
    assert due == NOW + 15 * SECOND
    kernel.idle_since(NOW + 5 * SECOND)
    names = [p["name"].rpartition(".")[2] for p in points(kernel.advance(due).metrics)]
    assert names == ["calls", "duration", "events"]


def test_the_state_of_the_previous_release_is_read() -> None:
    """Version 2 held one family of series; an older or newer one is refused with a clear message."""
    settings = SpanMetricsSettings(temporality="delta")
    kernel = SpanMetrics(settings)
    kernel.add(spans_batch([Span(EPOCH)]), NOW)
    state = kernel.state()
    kept = {"window", "lateness", "max_ahead", "idle_timeout", "emit_on_eof", "buckets", "unit", "temporality"}
    kept |= {"dimensions", "max_series", "series_expiry", "namespace"}
    before = {name: value for name, value in state["settings"].items() if name in kept}
    old = {"version": 2, "settings": before, **state["families"]["spans"]}
    resumed = SpanMetrics(settings)
    assert resumed.restore(old) == Update()
    resumed.add(spans_batch([Span(EPOCH + SECOND)]), NOW)
    assert next(p["value_int"] for p in points(resumed.flush().metrics)) == 2
    with pytest.raises(BatchError, match="expected version 2 or 3, got 1"):
        SpanMetrics(settings).restore({"version": 1})


def test_other_options_close_the_windows_there_are() -> None:
    """An events metric switched on between two runs loses nothing, and counts from then on."""
    old = SpanMetrics(_settings(temporality="delta"))
    rows = [Row(0, EPOCH, 0, "a", False, ("", ""), {}, {}, [{"kind": "x"}])]
    old.add(batch_of(rows), NOW)
    new = SpanMetrics(_settings(temporality="delta", events={"dimensions": [{"name": "kind"}]}))
    assert len(points(new.restore(old.state()).metrics)) == 2
    new.add(batch_of(rows), NOW)
    assert [p["name"].rpartition(".")[2] for p in points(new.flush().metrics)] == ["calls", "duration", "events"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calls_dimensions": [{"name": "a"}], "dimensions": [{"name": "a"}]}, "a is listed more than once"),
        ({"events": {"dimensions": []}}, "at least 1 item"),
        ({"events": {"dimensions": [{"name": "span.kind"}]}}, "span.kind is an attribute of span metrics already"),
        ({"histogram": "none", "histogram_dimensions": [{"name": "a"}]}, "expected none where histogram is none"),
        ({"exclude_dimensions": ["http.route"]}, "Input should be"),
        ({"exemplars": {"max_per_data_point": 0}}, "greater than or equal to 1"),
        ({"histogram": "exponentail"}, "Input should be"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    """Each mistake is named."""
    with pytest.raises(ValidationError, match=message):
        _settings(**options)
