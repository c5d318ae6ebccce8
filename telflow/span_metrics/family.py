"""Metrics over one table of series: their windows, and their points.

`calls` and `duration` are one family as long as their dimensions are the same; events are always one of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from telflow.aggregation.settings import nanos
from telflow.batch import TelemetryBatch
from telflow.columns import attribute_lists
from telflow.dimensions import from_typed
from telflow.metric_points import HistogramPoints, Points, SumPoints, Temporality, metrics_batch
from telflow.schema import MetricType
from telflow.series_windows import SeriesResult, SeriesWindows
from telflow.span_metrics.keys import fixed_types
from telflow.span_metrics.measured import Measured
from telflow.span_metrics.settings import OVERFLOW, SpanMetricsSettings
from telflow.windows import EventWindows

__all__ = ["Family"]

_SCOPE = "telflow.operators.span_metrics"
_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES = ("UNSET", "OK", "ERROR")
_TEMPORALITIES = {"delta": Temporality.DELTA, "cumulative": Temporality.CUMULATIVE}
_COUNTS = {"calls": ("Number of spans", "{call}"), "events": ("Number of span events", "{event}")}
_NEVER = 2**61


class Family:
    """One or two metrics over the same series.

    Args:
        measured: What is counted.
        settings: Of the span metrics.
    """

    def __init__(self, measured: Measured, settings: SpanMetricsSettings) -> None:
        self.name = measured.name
        self._measured = measured
        self._settings = settings
        self._fixed = fixed_types(settings)
        self.windows = EventWindows(measured.measures, settings.window_shape())
        self.series: SeriesWindows[TelemetryBatch] = SeriesWindows(
            [*self._fixed.values(), *[pa.binary()] * len(measured.dimensions)],
            measured.measures,
            self.windows,
            self._points,
            max_series=settings.max_series,
            expiry_nano=_NEVER if settings.series_expiry is None else nanos(settings.series_expiry),
            cumulative=settings.temporality == "cumulative",
        )

    def _points(self, result: SeriesResult) -> TelemetryBatch:
        own = dict(zip(self._fixed, result.keys, strict=False))
        others = result.keys[len(self._fixed) :]
        tenant, resource = own.pop("tenant"), own.pop("resource", None)
        service = {} if "service.name" not in own or resource is not None else {"service.name": own["service.name"]}
        attributes = [
            *((name, _spelt(name, column)) for name, column in own.items()),
            *((d.name, from_typed(column)) for d, column in zip(self._measured.dimensions, others, strict=True)),
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
        values, slots, measured = result.values, result.rows, self._measured
        per_unit = measured.per_unit
        explicit = measured.histogram == "explicit"
        buckets = values["buckets"][slots] if explicit else None
        counts = values["count"][slots] if buckets is None else buckets.sum(axis=1)
        prefix = f"{self._settings.namespace}." if self._settings.namespace else ""
        exemplars = None
        if measured.has_exemplars:
            exemplars = values.exemplars("exemplars").lists(slots, per_unit)
        found: list[SumPoints | HistogramPoints | Points] = []
        if measured.calls is not None:
            found.append(SumPoints(f"{prefix}{measured.calls}", *_COUNTS[measured.calls], counts, exemplars))
        if measured.histogram == "none":
            return found
        extent = [values[name][slots] / per_unit for name in ("sum", "min", "max")]
        metric = (f"{prefix}duration", "Duration of spans", self._settings.unit)
        if buckets is not None:
            bounds = measured.bounds.values / per_unit
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
