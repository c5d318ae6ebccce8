"""What is counted of spans for one or two metrics over the same series: columns of values, and what becomes of them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pyarrow as pa

from telflow.accumulator import Measure, Reduce
from telflow.aggregation.settings import nanos
from telflow.bounds import Bounds
from telflow.exemplars import candidates
from telflow.span_metrics.settings import Dimension, SpanMetricsSettings
from telflow.windows import Ints, Values

__all__ = ["Measured", "measured_of"]

_NANOS = {"s": 1e9, "ms": 1e6}


@functools.lru_cache(maxsize=16)  # the keys of a stream share one
def _bounds(buckets: tuple[timedelta, ...]) -> Bounds:
    return Bounds([nanos(bound) for bound in buckets])


class Measured:
    """One or two metrics over the same series.

    Args:
        name: Under which their state is kept: `spans`, `calls`, `durations` or `events`.
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
        self.calls = calls
        self.histogram = settings.histogram if has_durations else "none"
        self.per_unit = _NANOS[settings.unit]
        self.bounds = _bounds(settings.buckets)
        self.has_exemplars = settings.exemplars is not None
        self.measures = self._measures(settings)

    def _measures(self, settings: SpanMetricsSettings) -> dict[str, Measure]:
        # Nanoseconds. A double neither wraps nor, below 104 days in total, rounds.
        extent = {"sum": Measure(Reduce.SUM, "float64"), "min": Measure(Reduce.MIN), "max": Measure(Reduce.MAX)}
        match self.histogram:
            case "explicit":
                found = {"buckets": Measure(Reduce.BUCKETS, width=len(self.bounds.values) + 1), **extent}
            case "exponential":
                exponential = Measure(Reduce.EXPONENTIAL, width=settings.max_size)
                found = {"exponential": exponential, "count": Measure(Reduce.SUM), **extent}
            case _:
                found = {"count": Measure(Reduce.SUM)}
        if settings.exemplars is not None:
            found["exemplars"] = Measure(Reduce.EXEMPLARS, width=settings.exemplars.max_per_data_point)
        return found

    def inputs(self, spans: pa.RecordBatch, duration: Ints) -> dict[str, Values]:
        """Return the values of some spans for the measures.

        Args:
            spans: Their records.
            duration: Of each, in nanoseconds.
        """
        return {name: self._input(name, spans, duration) for name in self.measures}

    def _input(self, name: str, spans: pa.RecordBatch, duration: Ints) -> Values:
        match name:
            case "buckets":
                return self.bounds.buckets(duration)
            case "exponential":
                return np.asarray(duration / self.per_unit)
            case "count":
                return np.ones(len(duration), np.int64)
            case "sum":
                return duration.astype(np.float64)
            case "exemplars":
                times = spans["end_time_unix_nano"].to_numpy().view(np.int64)
                return candidates(spans["trace_id"], spans["span_id"], times, duration)
            case _:
                return duration


def measured_of(settings: SpanMetricsSettings) -> list[Measured]:
    """Return what is counted, by series; the first counts every span."""
    has_histogram = settings.histogram != "none"
    calls, durations = settings.calls_dimensions, settings.histogram_dimensions
    if not has_histogram or calls == durations:
        dimensions = (*settings.dimensions, *calls)
        found = [Measured("spans", settings, dimensions, calls="calls", has_durations=has_histogram)]
    else:
        found = [
            Measured("calls", settings, (*settings.dimensions, *calls), calls="calls", has_durations=False),
            Measured("durations", settings, (*settings.dimensions, *durations), calls=None, has_durations=True),
        ]
    if settings.events is not None:
        dimensions = (*settings.dimensions, *settings.events.dimensions)
        found.append(Measured("events", settings, dimensions, calls="events", has_durations=False))
    return found
