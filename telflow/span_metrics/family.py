"""Metrics over one table of series: which measures they take, and their points.

`calls` and `duration` are one family as long as their dimensions are the same; events are always one of their own.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pyarrow as pa

from telflow.accumulator import Measure, Reduce
from telflow.batch import TelemetryBatch
from telflow.bounds import Bounds
from telflow.columns import attribute_lists
from telflow.dimensions import from_typed
from telflow.exemplars import candidates
from telflow.metric_points import HistogramPoints, Points, SumPoints, Temporality, metrics_batch
from telflow.schema import MetricType
from telflow.series_windows import SeriesResult, SeriesWindows
from telflow.span_metrics.keys import fixed_types
from telflow.span_metrics.settings import OVERFLOW, Dimension, SpanMetricsSettings
from telflow.windows import EventWindows, Ints, Values, WindowShape

__all__ = ["Family", "families_of", "nanos"]

_SCOPE = "telflow.operators.span_metrics"
_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES = ("UNSET", "OK", "ERROR")
_NANOS = {"s": 1e9, "ms": 1e6}
_TEMPORALITIES = {"delta": Temporality.DELTA, "cumulative": Temporality.CUMULATIVE}
_COUNTS = {"calls": ("Number of spans", "{call}"), "events": ("Number of span events", "{event}")}
_NEVER = 2**61


def nanos(duration: timedelta) -> int:
    """Return a duration in nanoseconds."""
    return duration // timedelta(microseconds=1) * 1000


@functools.lru_cache(maxsize=16)  # the keys of a stream share one
def _bounds(buckets: tuple[timedelta, ...]) -> Bounds:
    return Bounds([nanos(bound) for bound in buckets])


class Family:
    """One or two metrics over the same series.

    Args:
        name: Under which its state is kept.
        settings: Of the span metrics.
        dimensions: Attributes besides the spans' own ones.
        calls: Name of the metric that counts; None: there is none.
        has_durations: Whether there is the histogram.
    """

    def __init__(
        self,
        name: str,
        settings: SpanMetricsSettings,
        dimensions: Sequence[Dimension],
        *,
        calls: str | None,
        has_durations: bool,
    ) -> None:
        self.name = name
        self.dimensions = tuple(dimensions)
        self._settings = settings
        self._calls = calls
        self._histogram = settings.histogram if has_durations else "none"
        self._per_unit = _NANOS[settings.unit]
        self._fixed = fixed_types(settings)
        measures = self._measures()
        self._names = tuple(measures)
        shape = WindowShape(nanos(settings.window), nanos(settings.lateness), nanos(settings.max_ahead))
        self.windows = EventWindows(measures, shape)
        self.series: SeriesWindows[TelemetryBatch] = SeriesWindows(
            [*self._fixed.values(), *[pa.binary()] * len(self.dimensions)],
            measures,
            self.windows,
            self._points,
            max_series=settings.max_series,
            expiry_nano=_NEVER if settings.series_expiry is None else nanos(settings.series_expiry),
            cumulative=settings.temporality == "cumulative",
        )

    def _measures(self) -> dict[str, Measure]:
        # Nanoseconds. A double neither wraps nor, below 104 days in total, rounds.
        extent = {"sum": Measure(Reduce.SUM, "float64"), "min": Measure(Reduce.MIN), "max": Measure(Reduce.MAX)}
        match self._histogram:
            case "explicit":
                width = len(_bounds(self._settings.buckets).values) + 1
                found = {"buckets": Measure(Reduce.BUCKETS, width=width), **extent}
            case "exponential":
                exponential = Measure(Reduce.EXPONENTIAL, width=self._settings.max_size)
                found = {"exponential": exponential, "count": Measure(Reduce.SUM), **extent}
            case _:
                found = {"count": Measure(Reduce.SUM)}
        if self._settings.exemplars is not None:
            found["exemplars"] = Measure(Reduce.EXEMPLARS, width=self._settings.exemplars.max_per_data_point)
        return found

    def inputs(self, spans: pa.RecordBatch, duration: Ints) -> dict[str, Values]:
        """Return the values of some spans for the measures.

        Args:
            spans: Their records.
            duration: Of each, in nanoseconds.
        """
        return {name: self._input(name, spans, duration) for name in self._names}

    def _input(self, name: str, spans: pa.RecordBatch, duration: Ints) -> Values:
        match name:
            case "buckets":
                return _bounds(self._settings.buckets).buckets(duration)
            case "exponential":
                return np.asarray(duration / self._per_unit)
            case "count":
                return np.ones(len(duration), np.int64)
            case "sum":
                return duration.astype(np.float64)
            case "exemplars":
                times = spans["end_time_unix_nano"].to_numpy().view(np.int64)
                return candidates(spans["trace_id"], spans["span_id"], times, duration)
            case _:
                return duration

    def _points(self, result: SeriesResult) -> TelemetryBatch:
        own = dict(zip(self._fixed, result.keys, strict=False))
        others = result.keys[len(self._fixed) :]
        tenant, resource = own.pop("tenant"), own.pop("resource", None)
        service = {} if "service.name" not in own or resource is not None else {"service.name": own["service.name"]}
        attributes = [
            *((name, _spelt(name, column)) for name, column in own.items()),
            *((d.name, from_typed(column)) for d, column in zip(self.dimensions, others, strict=True)),
            (OVERFLOW, pa.array(result.overflowed, mask=~result.overflowed)),
        ]
        return metrics_batch(
            self._metrics(result),
            scope=_SCOPE,
            tenant=tenant,
            resource_attributes=service,
            resources=resource,
            attributes=attribute_lists(len(result.rows), attributes),
            temporality=_TEMPORALITIES[self._settings.temporality],
            start_time_unix_nano=result.starts,
            time_unix_nano=result.ends,
        )

    def _metrics(self, result: SeriesResult) -> list[SumPoints | HistogramPoints | Points]:
        values, slots = result.values, result.rows
        explicit = self._histogram == "explicit"
        buckets = values["buckets"][slots] if explicit else None
        counts = values["count"][slots] if buckets is None else buckets.sum(axis=1)
        prefix = f"{self._settings.namespace}." if self._settings.namespace else ""
        exemplars = None
        if self._settings.exemplars is not None:
            exemplars = values.exemplars("exemplars").lists(slots, self._per_unit)
        found: list[SumPoints | HistogramPoints | Points] = []
        if self._calls is not None:
            found.append(SumPoints(f"{prefix}{self._calls}", *_COUNTS[self._calls], counts, exemplars))
        if self._histogram == "none":
            return found
        extent = [values[name][slots] / self._per_unit for name in ("sum", "min", "max")]
        metric = (f"{prefix}duration", "Duration of spans", self._settings.unit)
        if buckets is not None:
            bounds = _bounds(self._settings.buckets).values / self._per_unit
            found.append(HistogramPoints(*metric, bounds, buckets, extent[0], extent[1], extent[2], exemplars))
        else:
            columns = {
                "type": int(MetricType.EXPONENTIAL_HISTOGRAM),
                "count": counts,
                "zero_threshold": 0.0,
                **dict(zip(("sum", "min", "max"), extent, strict=True)),
                **values.exponential("exponential").points(slots),
            }
            told = {} if exemplars is None else {"exemplars": exemplars}
            found.append(Points(*metric, columns | told, cumulates=True))
        return found


def families_of(settings: SpanMetricsSettings) -> list[Family]:
    """Return the families of metrics; the first counts every span."""
    has_histogram = settings.histogram != "none"
    calls, durations = settings.calls_dimensions, settings.histogram_dimensions
    if not has_histogram or calls == durations:
        dimensions = (*settings.dimensions, *calls)
        found = [Family("spans", settings, dimensions, calls="calls", has_durations=has_histogram)]
    else:
        found = [
            Family("calls", settings, (*settings.dimensions, *calls), calls="calls", has_durations=False),
            Family("durations", settings, (*settings.dimensions, *durations), calls=None, has_durations=True),
        ]
    if settings.events is not None:
        dimensions = (*settings.dimensions, *settings.events.dimensions)
        found.append(Family("events", settings, dimensions, calls="events", has_durations=False))
    return found


def _spelt(name: str, column: pa.Array) -> pa.Array:
    match name:
        case "span.kind":
            return _spell("SPAN_KIND_", _KINDS, column)
        case "status.code":
            return _spell("STATUS_CODE_", _STATUSES, column)
        case _:
            return column


def _spell(prefix: str, names: Sequence[str], numbers: pa.Array) -> pa.Array:
    """Enum numbers as the protobuf names; a number without a name stays a number."""
    coded = numbers.dictionary_encode()
    known = dict(enumerate(names))
    spelt = [prefix + known[n] if n in known else str(n) for n in coded.dictionary.to_pylist()]
    return pa.array(spelt, pa.string()).take(coded.indices)
