"""A metrics batch from the columns of an aggregation: one point per series and metric."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telflow.batch import TelemetryBatch
from telflow.columns import attribute_lists, fill_record_batch, fixed_lists
from telflow.dimensions import typed
from telflow.resource_keys import attributes_of_keys
from telflow.schema import RECORD_SCHEMAS, RESOURCES, SCOPES, MetricType, Signal
from telflow.series import distinct_rows

__all__ = ["HistogramPoints", "Points", "SumPoints", "Temporality", "metrics_batch"]

Numbers: TypeAlias = npt.NDArray[Any]

_SCHEMA = RECORD_SCHEMAS[Signal.METRICS]


class Temporality(enum.IntEnum):
    """`AggregationTemporality` of opentelemetry.proto.metrics.v1."""

    DELTA = 1
    CUMULATIVE = 2


@dataclass(frozen=True, slots=True)
class SumPoints:
    """A monotonic sum; `values` holds one int64 per series, `exemplars` a list of exemplars if there are any."""

    name: str
    description: str
    unit: str
    values: Numbers
    exemplars: pa.ListArray | None = None

    def columns(self) -> dict[str, Any]:
        """The columns that say so."""
        told = {} if self.exemplars is None else {"exemplars": self.exemplars}
        return {"type": int(MetricType.SUM), "is_monotonic": True, "value_int": self.values, **told}


@dataclass(frozen=True, slots=True)
class HistogramPoints:
    """A histogram with explicit bounds.

    Attributes:
        bounds: Upper bounds of the buckets, inclusive (float64); the last bucket has none.
        bucket_counts: One row per series and one column per bucket (int64).
        sum: Of all values, per series (float64); `min` and `max` likewise.
        exemplars: A list of them per series, if there are any.
    """

    name: str
    description: str
    unit: str
    bounds: Numbers
    bucket_counts: Numbers
    sum: Numbers
    min: Numbers
    max: Numbers
    exemplars: pa.ListArray | None = None

    def columns(self) -> dict[str, Any]:
        """The columns that say so."""
        told = {} if self.exemplars is None else {"exemplars": self.exemplars}
        bounds = np.broadcast_to(self.bounds, (len(self.bucket_counts), len(self.bounds)))
        return {
            "type": int(MetricType.HISTOGRAM),
            "count": self.bucket_counts.sum(axis=1),
            "sum": self.sum,
            "min": self.min,
            "max": self.max,
            "bucket_counts": fixed_lists(self.bucket_counts, _SCHEMA.field("bucket_counts").type),
            "explicit_bounds": fixed_lists(bounds, _SCHEMA.field("explicit_bounds").type),
            **told,
        }


@dataclass(frozen=True, slots=True)
class Points:
    """Points of any kind.

    Attributes:
        values: Their columns, by name; see `telflow.schema`.
        cumulates: Whether the kind has a temporality: sums and histograms do, gauges and summaries do not.
    """

    name: str
    description: str
    unit: str
    values: Mapping[str, Any]
    cumulates: bool

    def columns(self) -> dict[str, Any]:
        """The columns that say so."""
        return {**self.values} if self.cumulates else {"aggregation_temporality": 0, **self.values}


def metrics_batch(
    metrics: Sequence[SumPoints | HistogramPoints | Points],
    *,
    scope: str,
    tenant: pa.StringArray,
    resource_attributes: Mapping[str, pa.Array],
    attributes: pa.ListArray,
    temporality: Temporality,
    start_time_unix_nano: Numbers,
    time_unix_nano: Numbers | int,
    resources: pa.BinaryArray | None = None,
) -> TelemetryBatch:
    """Return the points of all metrics, metric by metric, each with the series in the order given.

    Args:
        metrics: The metrics, all over the same series.
        scope: Name of the instrumentation scope.
        tenant: Owner of each series, or null.
        resource_attributes: By key, the value for each series; series with equal values and tenant share a resource.
        attributes: Attributes of each series' points.
        temporality: Of all metrics.
        start_time_unix_nano: Start of each series.
        time_unix_nano: End of the interval of each series, or of all.
        resources: The resource key (`telflow.resource_keys`) of each series, instead of `resource_attributes`.
    """
    rows = len(tenant)
    if resources is None:
        comparable = [typed(v) if pa.types.is_struct(v.type) else v for v in resource_attributes.values()]
        first, resource = distinct_rows([tenant, *comparable])
        distinct = pa.array(first)
        described = [(key, values.take(distinct)) for key, values in resource_attributes.items()]
        lists = attribute_lists(len(first), described)
    else:
        first, resource = distinct_rows([tenant, resources])
        distinct = pa.array(first)
        lists = attributes_of_keys(resources.take(distinct))
    shared = {
        "resource": resource,
        "attributes": attributes,
        "aggregation_temporality": int(temporality),
        "start_time_unix_nano": start_time_unix_nano,
        "time_unix_nano": time_unix_nano,
    }
    records = [
        fill_record_batch(
            _SCHEMA, rows, {"name": m.name, "description": m.description, "unit": m.unit, **shared, **m.columns()}
        )
        for m in metrics
    ]
    return TelemetryBatch(
        Signal.METRICS,
        pa.concat_batches(records),
        fill_record_batch(RESOURCES, len(first), {"tenant": tenant.take(distinct), "attributes": lists}),
        fill_record_batch(SCOPES, 1, {"name": scope}),
    )
