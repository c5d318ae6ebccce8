"""Results of an aggregation: rows of an Arrow table, and the same as OTLP metrics."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from telflow.aggregation.measures import MeasurePart
from telflow.aggregation.settings import AggregateSettings
from telflow.batch import TelemetryBatch
from telflow.columns import attribute_lists
from telflow.dimensions import from_typed
from telflow.fields import FieldRef, as_attribute
from telflow.metric_points import Points, Temporality, metrics_batch
from telflow.resource_keys import attributes_of_keys, resource_keys
from telflow.schema import Signal
from telflow.series_windows import SeriesResult

__all__ = ["metrics_of", "rows_of"]

_OVERFLOW = "otel.metric.overflow"


def rows_of(result: SeriesResult, settings: AggregateSettings) -> pa.RecordBatch:
    """Return a table with one row per series: tenant, window, keys, measures, `overflow` and `kind`.

    Histograms are structs of the columns of an OTLP data point, quantiles a struct with a list of (quantile, value).
    """
    tenant, *keys = result.keys
    kept = [("resource_attributes", attributes_of_keys(keys.pop()))] if settings.resource_attributes else []
    length_s = (result.ends - result.starts) / 1e9
    columns = {
        "tenant": tenant,
        "window_start_unix_nano": pa.array(result.starts),
        "window_end_unix_nano": pa.array(result.ends),
        **{
            name: _value(key, field) for name, field, key in zip(settings.key_columns(), settings.by, keys, strict=True)
        },
        **dict(kept),
        **{
            name: measure.rows(MeasurePart(result.values, name, result.rows, length_s))
            for name, measure in settings.measures.items()
        },
        "overflow": pa.array(result.overflowed),
        "kind": pa.repeat(pa.scalar(result.kind, pa.string()), len(tenant)),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), list(columns))


def metrics_of(rows: pa.RecordBatch, settings: AggregateSettings) -> TelemetryBatch:
    """Return the same as metrics: one metric per measure, one point per series that has a value for it.

    Keys from resources become attributes of the points' resources, all others attributes of the points; with
    `resource_attributes` resources have those, and points all keys. A metric has
    no place for results that replace each other, so early ones and corrections are left out.
    """
    rows = rows.filter(pc.equal(rows["kind"], "final"))
    overflowed = rows["overflow"].to_numpy(zero_copy_only=False)
    keys = {f: as_attribute(rows[name]) for name, f in zip(settings.key_columns(), settings.by, strict=True)}
    whole = settings.resource_attributes
    inherited = {f: values for f, values in keys.items() if f.level == "resource" and not whole}
    cumulative = settings.temporality == "cumulative"
    temporality = Temporality.CUMULATIVE if cumulative else Temporality.DELTA
    prefix = f"{settings.namespace}." if settings.namespace else ""
    points = [
        Points(f"{prefix}{name}", measure.description, measure.unit, measure.points(rows[name]), measure.cumulates)
        for name, measure in settings.measures.items()
    ]
    of_points = [(f.name, values) for f, values in keys.items() if f not in inherited]
    batch = metrics_batch(
        points,
        scope="telflow.operators.aggregate",
        tenant=rows["tenant"],
        resource_attributes={f.name: values for f, values in inherited.items()},
        resources=resource_keys(rows["resource_attributes"], ["*"]) if whole else None,
        attributes=attribute_lists(rows.num_rows, [*of_points, (_OVERFLOW, pa.array(overflowed, mask=~overflowed))]),
        temporality=temporality,
        start_time_unix_nano=rows["window_start_unix_nano"].to_numpy(),
        time_unix_nano=rows["window_end_unix_nano"].to_numpy(),
    )
    return batch.filter(_has_value(batch))


def _value(key: pa.Array, field: FieldRef) -> pa.Array:
    return from_typed(key) if field.is_typed else key


def _has_value(batch: TelemetryBatch) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    assert batch.signal is Signal.METRICS  # noqa: S101 - it was just made
    number = pc.or_(pc.is_valid(batch.records["value_int"]), pc.is_valid(batch.records["value_double"]))
    counted = pc.fill_null(pc.greater(batch.records["count"], 0), fill_value=False)
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = pc.or_(number, counted).to_numpy(zero_copy_only=False)
    return found
