"""span_metrics: request rate, errors and duration (RED) of spans, in event-time windows, as OTLP metrics.

Names, attributes and defaults are those of the OpenTelemetry Collector's ``spanmetrics`` connector, so that its
dashboards work unchanged:

* ``traces.span.metrics.calls``, a monotonic sum of spans; errors are its points with ``status.code`` =
  ``STATUS_CODE_ERROR``;
* ``traces.span.metrics.duration``, a histogram of span durations with count, sum, min, max.

Both have the attributes ``service.name``, ``span.name``, ``span.kind`` (``SPAN_KIND_SERVER`` ...), ``status.code``
(``STATUS_CODE_UNSET`` ...) and the dimensions asked for; a resource holds ``service.name`` and belongs to the tenant.
Where this operator differs from the connector: it aggregates in windows of *event time*, by the time a span **ended**
(the moment it is exported, so that long spans are not late), not in intervals of arrival; a resource without
``service.name`` counts as ``unknown_service`` (semantic conventions, "Service") instead of being left out.

Time, lateness and what is refused: `telflow.windows`. A series belongs to one key of the stream: partition by tenant
or by anything that does not split one series over several keys.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

import bytewax.operators as op
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream
from pydantic import Field, field_validator, model_validator

from telflow.accounting import LEDGER, Ledger
from telflow.accumulator import Measure, Reduce
from telflow.attributes import extract_attribute
from telflow.batch import TelemetryBatch
from telflow.bounds import Bounds
from telflow.columns import attribute_lists
from telflow.dimensions import first_values, from_typed, typed, typed_scalar
from telflow.errors import BatchError
from telflow.metric_points import HistogramPoints, SumPoints, Temporality, metrics_batch
from telflow.rows import take_rows
from telflow.schema import Signal
from telflow.series import MAX_SERIES_LIMIT
from telflow.series_windows import SeriesResult, SeriesWindows
from telflow.settings import Duration, Settings
from telflow.window_logic import Update, WindowLogic
from telflow.windows import EventWindows, WindowShape

__all__ = ["Dimension", "SpanMetrics", "SpanMetricsOut", "SpanMetricsSettings", "span_metrics"]

_OWN = ("service.name", "span.name", "span.kind", "status.code")
_OVERFLOW = "otel.metric.overflow"
_UNKNOWN_SERVICE = pa.scalar("unknown_service", pa.string())
_STATUS_UNSET = pa.scalar(0, pa.int32())
_SCOPE = "telflow.operators.span_metrics"
_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES = ("UNSET", "OK", "ERROR")
_NANOS = {"s": 1e9, "ms": 1e6}
_TEMPORALITIES = {"delta": Temporality.DELTA, "cumulative": Temporality.CUMULATIVE}
_STATE_VERSION = 2
_READ = ("resource", "name", "kind", "start_time_unix_nano", "end_time_unix_nano", "status_code")

Times = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]


class Dimension(Settings):
    """One more attribute of the metrics, taken from the spans."""

    name: Annotated[str, Field(min_length=1)]
    """Attribute key, for example `http.route`."""
    source: Literal["any", "span", "resource"] = "any"
    """Where the attribute is looked for; `any`: on the span, then on its resource."""
    default: str | bool | int | float | None = None
    """Value when there is none; without a default the metric does not have the attribute either."""


class SpanMetricsSettings(Settings):
    """Options of `span_metrics`.

    >>> SpanMetricsSettings(window="1m", temporality="delta").window
    datetime.timedelta(seconds=60)
    """

    window: Duration = timedelta(seconds=10)
    """Length of a window of event time; each gives one point per series."""
    lateness: Duration = timedelta(seconds=5)
    """How much out of order spans may end and still count: a window closes that long after its end."""
    max_ahead: Duration = timedelta(minutes=5)
    """A span that ended further ahead of the system clock than this is refused; its clock is wrong."""
    idle_timeout: Duration | None = timedelta(seconds=10)
    """After this long without spans the system clock moves the watermark on, so that the last windows close.
    Null: only spans do, which makes a slow replay give exactly the windows of a fast one."""
    emit_on_eof: bool = False
    """Emit all open windows when the input ends. For finite inputs (a replay, a test). Leave it off where the flow
    stops and resumes: a drain looks the same, and windows are kept over it so that none is split."""
    buckets: tuple[Duration, ...] = tuple(
        timedelta(milliseconds=ms)
        for ms in (2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 1400, 2000, 5000, 10000, 15000)
    )
    """Upper bounds of the duration histogram, inclusive, ascending; the last bucket has none."""
    unit: Literal["s", "ms"] = "s"
    """Unit of durations. Seconds are the semantic conventions' choice; older dashboards expect `ms`."""
    temporality: Literal["cumulative", "delta"] = "cumulative"
    """`delta`: a point counts the spans of its window. `cumulative`: all spans since the series began, and every
    window repeats the series that had no spans, until they expire."""
    dimensions: tuple[Dimension, ...] = ()
    """Further attributes of the metrics."""
    max_series: Annotated[int, Field(ge=1, le=MAX_SERIES_LIMIT)] = 10_000
    """Most series per key; spans of further ones are counted in one series per tenant with the sole attribute
    `otel.metric.overflow` = true."""
    series_expiry: Duration = timedelta(minutes=15)
    """A series is forgotten this long (in event time) after its last window with spans; a cumulative one that comes
    back starts from zero with a new start time."""
    namespace: str = "traces.span.metrics"
    """What the names of the metrics start with; may be empty."""

    @field_validator("buckets")
    @classmethod
    def _ascending(cls, buckets: tuple[timedelta, ...]) -> tuple[timedelta, ...]:
        if list(buckets) != sorted(set(buckets)) or any(bound <= timedelta() for bound in buckets):
            raise ValueError(f"expected ascending bounds above 0, got {', '.join(str(bound) for bound in buckets)}")
        return buckets

    @field_validator("dimensions")
    @classmethod
    def _distinct(cls, dimensions: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
        names = [dimension.name for dimension in dimensions]
        for name in names:
            if name in (*_OWN, _OVERFLOW):
                raise ValueError(f"{name} is an attribute of span metrics already; remove it from the dimensions")
            if names.count(name) > 1:
                raise ValueError(f"{name} is listed more than once")
        return dimensions

    @model_validator(mode="after")
    def _positive(self) -> SpanMetricsSettings:
        if self.window < timedelta(milliseconds=1):
            raise ValueError(f"window: expected at least 1ms, got {self.window}")
        for name in ("lateness", "max_ahead", "idle_timeout", "series_expiry"):
            value = getattr(self, name)
            if value is not None and value < timedelta():
                raise ValueError(f"{name}: expected at least 0, got {value}")
        if self.series_expiry < self.window:
            raise ValueError(f"series_expiry: expected at least one window ({self.window}), got {self.series_expiry}")
        return self

    def shape(self) -> dict[str, Any]:
        """What the state of running windows depends on; other options may change between runs."""
        return self.model_dump(mode="json", include={"window", "buckets", "temporality", "dimensions"})


class SpanMetrics:
    """The kernel: spans in, metrics of closed windows out. No clock and no I/O; times are Unix nanoseconds.

    >>> kernel = SpanMetrics(SpanMetricsSettings())
    >>> kernel.add(TelemetryBatch.empty(Signal.TRACES), now_unix_nano=0)
    Update(metrics=(), late=None, ahead=None, rows=(), refused=())
    """

    def __init__(self, settings: SpanMetricsSettings) -> None:
        self._settings = settings
        # What is read of a span; the rest is not touched.
        self._read = [*_READ, "attributes"] if settings.dimensions else list(_READ)
        self._bounds = _bounds(settings.buckets)
        measures = {
            "buckets": Measure(Reduce.BUCKETS, width=len(self._bounds.values) + 1),
            # Nanoseconds. A double neither wraps nor, below 104 days in total, rounds.
            "sum": Measure(Reduce.SUM, "float64"),
            "min": Measure(Reduce.MIN),
            "max": Measure(Reduce.MAX),
        }
        shape = WindowShape(_nanos(settings.window), _nanos(settings.lateness), _nanos(settings.max_ahead))
        self._windows = EventWindows(measures, shape)
        dtypes = [pa.string(), pa.string(), pa.string(), pa.int32(), pa.int32()]
        dtypes += [pa.binary()] * len(settings.dimensions)
        self._series = SeriesWindows(
            dtypes,
            measures,
            self._windows,
            self._metrics,
            max_series=settings.max_series,
            expiry_nano=_nanos(settings.series_expiry),
            cumulative=settings.temporality == "cumulative",
        )

    def add(self, batch: TelemetryBatch, now_unix_nano: int) -> Update:
        """Count a batch of spans; batches of other signals change nothing."""
        if batch.signal is not Signal.TRACES or not batch.num_rows:
            return Update()
        sifted = self._windows.sift(batch.records["end_time_unix_nano"].to_numpy(), now_unix_nano)
        late = batch.take(pa.array(sifted.late)) if sifted.late.size else None
        ahead = batch.take(pa.array(sifted.ahead)) if sifted.ahead.size else None
        records = batch.records.select(self._read)
        if sifted.accepted is not None:
            records = take_rows(records, sifted.accepted.astype(np.uint32))
        duration = _durations(records)
        values = {
            "buckets": self._bounds.buckets(duration),
            "sum": duration.astype(np.float64),
            "min": duration,
            "max": duration,
        }
        return Update(self._series.add(sifted, self._dimensions(records, batch.resources), values), late, ahead)

    def due_unix_nano(self) -> int | None:
        """System time at which `advance` closes a window if no spans come until then; None when nothing is open."""
        idle = self._settings.idle_timeout
        return None if idle is None else self._windows.due_unix_nano(_nanos(idle))

    def idle_since(self, system_unix_nano: int) -> None:
        """Say that silence only counts from this moment: after a restart, or a stall of the process."""
        self._windows.idle_since(system_unix_nano)

    def advance(self, now_unix_nano: int) -> Update:
        """Let the system clock close windows, the input being silent; only when `due_unix_nano` has passed."""
        return Update(self._series.advance(now_unix_nano))

    def flush(self) -> Update:
        """Close all open windows; spans for them that still come are late."""
        return Update(self._series.flush())

    def state(self) -> dict[str, Any]:
        """Return everything as plain, versioned data that later changes do not touch."""
        return {
            "version": _STATE_VERSION,
            "settings": self._settings.model_dump(mode="json"),
            **self._series.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> Update:
        """Take over what `state` returned, before anything is added.

        When options that shape windows have changed since, the windows of that time cannot go on: they are closed
        under their own options and returned, and counting begins anew behind them.

        Raises:
            BatchError: Another version of telflow wrote it, in a form this one does not read.
        """
        if state.get("version") != _STATE_VERSION:
            raise BatchError(
                f"state of span_metrics: expected version {_STATE_VERSION}, got {state.get('version')}; resume with "
                "the version of telflow that wrote it, or give the step another id to begin anew"
            )
        before = SpanMetricsSettings.model_validate(state["settings"])
        if before.shape() != self._settings.shape():
            old = SpanMetrics(before)
            old.restore(state)
            self._windows.restore_time(state["windows"])
            return old.flush()
        self._series.restore(state)
        return Update()

    def _dimensions(self, records: pa.RecordBatch, resources: pa.RecordBatch) -> list[pa.Array]:
        place = records["resource"]

        def of_resource(values: pa.Array) -> pa.Array:
            return pa.DictionaryArray.from_arrays(place, values, safe=False)  # the batch has checked the row numbers

        service = extract_attribute(resources["attributes"], "service.name", pa.string())
        columns = [
            of_resource(resources["tenant"]),
            of_resource(_filled(service, _UNKNOWN_SERVICE)),
            records["name"],
            records["kind"],
            _filled(records["status_code"], _STATUS_UNSET),
        ]
        for dimension in self._settings.dimensions:
            default = None if dimension.default is None else typed_scalar(dimension.default)
            default_value = pa.scalar(default, pa.binary())
            inherited = typed(first_values(resources["attributes"], dimension.name))
            if dimension.source == "resource":
                columns.append(of_resource(pc.coalesce(inherited, default_value)))
                continue
            own = typed(first_values(records["attributes"], dimension.name))
            if dimension.source == "any":
                own = pc.coalesce(own, inherited.take(place))
            columns.append(pc.coalesce(own, default_value))
        return columns

    def _metrics(self, result: SeriesResult) -> TelemetryBatch:
        tenant, service, name, kind, status, *others = result.keys
        slots, overflowed = result.rows, result.overflowed
        attributes = [
            ("service.name", service),
            ("span.name", name),
            ("span.kind", _spell("SPAN_KIND_", _KINDS, kind)),
            ("status.code", _spell("STATUS_CODE_", _STATUSES, status)),
            *((d.name, from_typed(column)) for d, column in zip(self._settings.dimensions, others, strict=True)),
            (_OVERFLOW, pa.array(overflowed, mask=~overflowed)),
        ]
        unit = self._settings.unit
        prefix = f"{self._settings.namespace}." if self._settings.namespace else ""
        buckets = result.values["buckets"][slots]
        duration = {name: result.values[name][slots] / _NANOS[unit] for name in ("sum", "min", "max")}
        return metrics_batch(
            [
                SumPoints(f"{prefix}calls", "Number of spans", "{call}", buckets.sum(axis=1)),
                HistogramPoints(
                    f"{prefix}duration",
                    "Duration of spans",
                    unit,
                    bounds=self._bounds.values / _NANOS[unit],
                    bucket_counts=buckets,
                    **duration,
                ),
            ],
            scope=_SCOPE,
            tenant=tenant,
            resource_attributes={"service.name": service},
            attributes=attribute_lists(len(slots), attributes),
            temporality=_TEMPORALITIES[self._settings.temporality],
            start_time_unix_nano=result.starts,
            time_unix_nano=result.ends,
        )


@dataclass(frozen=True)
class SpanMetricsOut:
    """Streams of `span_metrics`.

    Attributes:
        metrics: One metrics batch per key and closed window, to be sent to any OTLP backend.
        late: The spans refused because of their time, already counted as dropped; connect it to keep them.
    """

    metrics: KeyedStream[TelemetryBatch]
    late: KeyedStream[TelemetryBatch]


@operator
def span_metrics(
    step_id: str,
    up: KeyedStream[TelemetryBatch],
    settings: SpanMetricsSettings,
    clock: Callable[[], int] = time.time_ns,
    ledger: Ledger = LEDGER,
) -> SpanMetricsOut:
    """Aggregate spans into request, error and duration metrics per event-time window.

    State is kept per key and survives restarts and changes of the number of workers. Spans refused because of their
    time are counted in the ledger as dropped (reasons `late` and `ahead of clock`), points made as derived.

    Args:
        step_id: Unique ID.
        up: Keyed batches; those of other signals are ignored.
        settings: See `SpanMetricsSettings`.
        clock: System time in Unix nanoseconds.
        ledger: Where outcomes are counted.

    Returns:
        The metrics, and the spans that came too late.

    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> out: list[tuple[str, TelemetryBatch]] = []
    >>> flow = Dataflow("example")
    >>> spans = op.input("spans", flow, TestingSource([("acme", TelemetryBatch.empty(Signal.TRACES))]))
    >>> red = span_metrics("red", spans, SpanMetricsSettings(window="1m", emit_on_eof=True))
    >>> op.output("metrics", red.metrics, TestingSink(out))
    >>> run_main(flow)
    """

    def build(state: dict[str, Any] | None) -> WindowLogic[TelemetryBatch]:
        return WindowLogic(
            step_id, SpanMetrics(settings), state, emit_on_eof=settings.emit_on_eof, clock=clock, ledger=ledger
        )

    out = op.stateful_batch("window", up, build)
    metrics = op.filter_value("metrics", out, lambda batch: batch.signal is Signal.METRICS)
    late = op.filter_value("late", out, lambda batch: batch.signal is Signal.TRACES)
    return SpanMetricsOut(metrics, late)


def _nanos(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1) * 1000


@functools.lru_cache(maxsize=16)  # the keys of a stream share one
def _bounds(buckets: tuple[timedelta, ...]) -> Bounds:
    return Bounds([_nanos(bound) for bound in buckets])


def _durations(records: pa.RecordBatch) -> Ints:
    """Nanoseconds from start to end; a span that ends before it starts took 0, as in the Collector."""
    start = records["start_time_unix_nano"].to_numpy()
    end = records["end_time_unix_nano"].to_numpy()
    return np.asarray((end - np.minimum(start, end)).view(np.int64))


def _filled(column: pa.Array, value: pa.Scalar) -> pa.Array:
    return column.fill_null(value) if column.null_count else column


def _spell(prefix: str, names: Sequence[str], numbers: pa.Array) -> pa.Array:
    """Enum numbers as the protobuf names; a number without a name stays a number."""
    coded = numbers.dictionary_encode()
    known = dict(enumerate(names))
    spelt = [prefix + known[n] if n in known else str(n) for n in coded.dictionary.to_pylist()]
    return pa.array(spelt, pa.string()).take(coded.indices)
