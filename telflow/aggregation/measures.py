"""What can be measured of the records of a series: settings, the columns they accumulate in, and their results.

A value is a finite number; a record without one (no such attribute, text, NaN) does not count for that measure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Discriminator, Field, field_validator
from typing_extensions import override

from telflow.accumulator import Accumulator, Measure, Reduce
from telflow.columns import fixed_lists
from telflow.distinct import DistinctColumn, hash_values
from telflow.exponential import ExponentialColumn, scale_for
from telflow.fields import AnyField, FieldRef, Floats, Records
from telflow.latest import timed
from telflow.schema import RECORD_SCHEMAS, MetricType, Signal
from telflow.settings import Settings
from telflow.windows import Ints, Values

__all__ = [
    "AnyMeasure",
    "Count",
    "Distinct",
    "ExponentialHistogram",
    "Histogram",
    "Last",
    "Max",
    "Mean",
    "MeasurePart",
    "Min",
    "Quantiles",
    "Rate",
    "Sum",
]

_POINTS = RECORD_SCHEMAS[Signal.METRICS]
_LIST_OF = {name: _POINTS.field(name).type for name in ("bucket_counts", "explicit_bounds", "quantile_values")}
_BUCKETS = _POINTS.field("positive").type
_COUNT = Measure(Reduce.SUM)
_SUM, _MIN, _MAX = (Measure(reduce, "float64") for reduce in (Reduce.SUM, Reduce.MIN, Reduce.MAX))
_SUMMARY = {"count": _COUNT, "sum": _SUM, "min": _MIN, "max": _MAX}


@dataclass(frozen=True, slots=True)
class MeasurePart:
    """What one measure has accumulated, of some series.

    Attributes:
        values: All columns.
        name: Of the measure.
        slots: Which series.
        length_s: Length of the time that each series' values cover.
    """

    values: Accumulator
    name: str
    slots: Ints
    length_s: Floats

    def dense(self, column: str) -> Values:
        """One number, or one row of bucket counts, per series."""
        return np.asarray(self.values[f"{self.name}.{column}"][self.slots])

    def exponential(self) -> ExponentialColumn:
        """The measure's exponential histogram, of all series."""
        return self.values.exponential(f"{self.name}.exponential")

    def distinct(self) -> DistinctColumn:
        """The measure's distinct count, of all series."""
        return self.values.distinct(f"{self.name}.distinct")

    def summary(self) -> dict[str, pa.Array]:
        """Count, sum, min and max; the last two null where there are no values."""
        count = self.dense("count")
        found = {name: pa.array(self.dense(name), mask=count == 0) for name in ("min", "max")}
        return {"count": pa.array(count), "sum": pa.array(self.dense("sum")), **found}


class _Measure(Settings, ABC):
    """What all measures have."""

    description: str = ""
    """Description of the metric."""
    unit: str = ""
    """Unit of the metric, in UCUM (`s`, `By`, `{request}`)."""

    @property
    def fields(self) -> tuple[FieldRef, ...]:
        """What is read of a record."""
        of: FieldRef | None = getattr(self, "of", None)
        return () if of is None else (of,)

    @property
    def cumulates(self) -> bool:
        """Whether the metric has a temporality; others (gauges, summaries) describe one window."""
        return False

    @abstractmethod
    def columns(self) -> dict[str, Measure]:
        """What is accumulated, by a name within this measure."""

    @abstractmethod
    def inputs(self, records: Records) -> dict[str, Values]:
        """Values of some records for these columns."""

    @abstractmethod
    def rows(self, part: MeasurePart) -> pa.Array:
        """The results: one per series."""

    def points(self, results: pa.Array) -> dict[str, Any]:
        """Columns of OTLP data points with these results; the default is a gauge."""
        return {"type": int(MetricType.GAUGE), "value_double": results.cast(pa.float64())}


class _OfValues(_Measure, ABC):
    of: AnyField
    """The field that holds the value."""

    def _count(self, records: Records) -> Values:
        missing = records.missing(self.of)
        return np.ones(len(records), np.int64) if missing is None else (~missing).astype(np.int64)

    def _sum(self, records: Records) -> Values:
        values, missing = records.numbers(self.of), records.missing(self.of)
        return values if missing is None else np.where(missing, 0.0, values)

    def _summary(self, records: Records) -> dict[str, Values]:
        values = records.numbers(self.of)
        return {"count": self._count(records), "sum": self._sum(records), "min": values, "max": values}


class Count(_Measure):
    """How many records there were, or how many had a value."""

    kind: Literal["count"] = "count"
    """Counts records."""
    of: AnyField | None = None
    """Count only records where this field holds a number or, when it is no number, anything at all."""

    @property
    @override
    def cumulates(self) -> bool:
        return True

    @override
    def columns(self) -> dict[str, Measure]:
        return {"count": _COUNT}

    @override
    def inputs(self, records: Records) -> dict[str, Values]:
        if self.of is None:
            return {"count": np.ones(len(records), np.int64)}
        column = records.key(self.of)
        there = pc.is_valid(column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column)
        return {"count": there.to_numpy(zero_copy_only=False).astype(np.int64)}

    @override
    def rows(self, part: MeasurePart) -> pa.Array:
        return pa.array(part.dense("count"))

    @override
    def points(self, results: pa.Array) -> dict[str, Any]:
        return {"type": int(MetricType.SUM), "is_monotonic": True, "value_int": results}


class Sum(_OfValues):
    """The sum of the values."""

    kind: Literal["sum"] = "sum"
    """Adds values up."""
    monotonic: bool = False
    """Whether values are never negative, so that the metric is a counter."""

    @property
    @override
    def cumulates(self) -> bool:
        return True

    @override
    def columns(self) -> dict[str, Measure]:
        return {"sum": _SUM}

    @override
    def inputs(self, records: Records) -> dict[str, Values]:
        return {"sum": self._sum(records)}

    @override
    def rows(self, part: MeasurePart) -> pa.Array:
        return pa.array(part.dense("sum"))

    @override
    def points(self, results: pa.Array) -> dict[str, Any]:
        return {"type": int(MetricType.SUM), "is_monotonic": self.monotonic, "value_double": results}


class Rate(_Measure):
    """Records, or a sum of values, per second of the window."""

    kind: Literal["rate"] = "rate"
    """Divides by the length of the window."""
    of: AnyField | None = None
    """The field whose values are added up; without it records are counted."""

    @override
    def columns(self) -> dict[str, Measure]:
        return {"sum": _SUM}

    @override
    def inputs(self, records: Records) -> dict[str, Values]:
        if self.of is None:
            return {"sum": np.ones(len(records))}
        return {"sum": np.nan_to_num(records.numbers(self.of))}

    @override
    def rows(self, part: MeasurePart) -> pa.Array:
        return pa.array(part.dense("sum") / part.length_s)


class Min(_OfValues):
    """The smallest value."""

    kind: Literal["min"] = "min"
    """Takes the smallest."""

    @override
    def columns(self) -> dict[str, Measure]:
        return {"min": _MIN}

    @override
    def inputs(self, records: Records) -> dict[str, Values]:
        return {"min": records.numbers(self.of)}

    @override
    def rows(self, part: MeasurePart) -> pa.Array:
        values = part.dense("min")
        return pa.array(values, mask=np.isinf(values))


class Max(_OfValues):
    """The largest value."""

    kind: Literal["max"] = "max"
    """Takes the largest."""

    @override
    def columns(self) -> dict[str, Measure]:
        return {"max": _MAX}

    @override
    def inputs(self, records: Records) -> dict[str, Values]:
        return {"max": records.numbers(self.of)}

    @override
    def rows(self, part: MeasurePart) -> pa.Array:
        values = part.dense("max")
        return pa.array(values, mask=np.isinf(values))


class Mean(_OfValues):
    """The arithmetic mean of the values."""

    kind: Literal["mean"] = "mean"
    """Divides the sum by the number of values."""

    @override
    def columns(self) -> dict[str, Measure]:
        return {"count": _COUNT, "sum": _SUM}

    @override
    def inputs(self, records: Records) -> dict[str, Values]:
        return {"count": self._count(records), "sum": self._sum(records)}

    @override
    def rows(self, part: MeasurePart) -> pa.Array:
        count = part.dense("count")
        return pa.array(part.dense("sum") / np.maximum(count, 1), mask=count == 0)


class Last(_OfValues):
    """The latest value by event time; of several at the same time the largest."""

    kind: Literal["last"] = "last"
    """Takes the latest."""

    @override
    def columns(self) -> dict[str, Measure]:
        return {"last": Measure(Reduce.LATEST)}

    @override
    def inputs(self, records: Records) -> dict[str, Values]:
        return {"last": timed(records.times(), records.numbers(self.of))}

    @override
    def rows(self, part: MeasurePart) -> pa.Array:
        values = part.values.latest(f"{part.name}.last").values[part.slots]
        return pa.array(values, mask=np.isnan(values))


class Histogram(_OfValues):
    """A histogram with explicit bounds, and count, sum, min and max."""

    kind: Literal["histogram"] = "histogram"
    """Counts values by bucket."""
    bounds: tuple[float, ...]
    """Upper bounds of the buckets, inclusive, ascending; the last bucket has none."""

    @field_validator("bounds")
    @classmethod
    def _ascending(cls, bounds: tuple[float, ...]) -> tuple[float, ...]:
        if list(bounds) != sorted(set(bounds)) or not np.isfinite(bounds).all():
            raise ValueError(f"expected ascending finite bounds, got {list(bounds)}")
        return bounds

    @property
    @override
    def cumulates(self) -> bool:
        return True

    @override
    def columns(self) -> dict[str, Measure]:
        return {"buckets": Measure(Reduce.BUCKETS, width=len(self.bounds) + 1), **_SUMMARY}

    @override
    def inputs(self, records: Records) -> dict[str, Values]:
        values = records.numbers(self.of)
        buckets = np.searchsorted(np.array(self.bounds), values, side="left")
        missing = records.missing(self.of)
        if missing is not None:
            buckets[missing] = -1
        return {"buckets": buckets, **self._summary(records)}

    @override
    def rows(self, part: MeasurePart) -> pa.Array:
        counts = part.dense("buckets")
        bounds = np.broadcast_to(np.array(self.bounds, np.float64), (len(counts), len(self.bounds)))
        found = part.summary()
        found["bucket_counts"] = fixed_lists(counts, _LIST_OF["bucket_counts"])
        found["explicit_bounds"] = fixed_lists(bounds, _LIST_OF["explicit_bounds"])
        return pa.StructArray.from_arrays(list(found.values()), list(found))

    @override
    def points(self, results: pa.Array) -> dict[str, Any]:
        return {"type": int(MetricType.HISTOGRAM), **_columns_of(results)}


class ExponentialHistogram(_OfValues):
    """An exponential histogram: base-2 buckets whose scale follows the values."""

    kind: Literal["exponential_histogram"] = "exponential_histogram"
    """Counts values by exponential bucket."""
    max_size: Annotated[int, Field(ge=2, le=4096)] = 160
    """Most buckets on either side of zero."""

    @property
    @override
    def cumulates(self) -> bool:
        return True

    @override
    def columns(self) -> dict[str, Measure]:
        return {"exponential": Measure(Reduce.EXPONENTIAL, width=self.max_size), **_SUMMARY}

    @override
    def inputs(self, records: Records) -> dict[str, Values]:
        return {"exponential": records.numbers(self.of), **self._summary(records)}

    @override
    def rows(self, part: MeasurePart) -> pa.Array:
        points = part.exponential().points(part.slots)
        found = {**part.summary(), "scale": pa.array(points["scale"]), "zero_count": pa.array(points["zero_count"])}
        found |= {side: points[side].cast(_BUCKETS) for side in ("positive", "negative")}
        return pa.StructArray.from_arrays(list(found.values()), list(found))

    @override
    def points(self, results: pa.Array) -> dict[str, Any]:
        return {"type": int(MetricType.EXPONENTIAL_HISTOGRAM), "zero_threshold": 0.0, **_columns_of(results)}


class Quantiles(_OfValues):
    """Approximate quantiles, from a DDSketch: each off by at most `error` times its value."""

    kind: Literal["quantiles"] = "quantiles"
    """Estimates quantiles."""
    quantiles: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.5, 0.9, 0.99)
    """Which ones, ascending."""
    error: Annotated[float, Field(ge=0.0001, lt=0.5)] = 0.01
    """Relative error allowed. It holds while the values of a series are within `max_size` buckets: at 0.01 within a
    factor of 2**32 of each other; beyond that it doubles as often as it must."""
    max_size: Annotated[int, Field(ge=64, le=1 << 20)] = 2048
    """Most buckets on either side of zero."""

    @field_validator("quantiles")
    @classmethod
    def _ascending(cls, quantiles: tuple[float, ...]) -> tuple[float, ...]:
        if not quantiles or list(quantiles) != sorted(set(quantiles)):
            raise ValueError(f"expected ascending quantiles, got {list(quantiles)}")
        return quantiles

    @override
    def columns(self) -> dict[str, Measure]:
        sketch = Measure(Reduce.EXPONENTIAL, width=self.max_size, scale=scale_for(self.error))
        return {"exponential": sketch, **_SUMMARY}

    @override
    def inputs(self, records: Records) -> dict[str, Values]:
        return {"exponential": records.numbers(self.of), **self._summary(records)}

    @override
    def rows(self, part: MeasurePart) -> pa.Array:
        summary = part.summary()
        found = part.exponential().quantiles(part.slots, np.array(self.quantiles))
        # No estimate lies outside what was seen.
        found = np.clip(found, part.dense("min")[:, None], part.dense("max")[:, None])
        there = part.dense("count") > 0
        asked = np.tile(np.array(self.quantiles), int(there.sum()))
        pairs = pa.StructArray.from_arrays(
            [pa.array(asked), pa.array(found[there].reshape(-1))], fields=list(_LIST_OF["quantile_values"].value_type)
        )
        offsets = np.concatenate([[0], np.cumsum(there * len(self.quantiles))]).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(offsets), pairs, type=_LIST_OF["quantile_values"])
        return pa.StructArray.from_arrays(
            [summary["count"], summary["sum"], lists], ["count", "sum", "quantile_values"]
        )

    @override
    def points(self, results: pa.Array) -> dict[str, Any]:
        return {"type": int(MetricType.SUMMARY), **_columns_of(results)}


class Distinct(_Measure):
    """Approximate number of different values of a field: HyperLogLog of Apache DataSketches.

    The standard error is 1.04 / sqrt(2**lg_k): 1.6 % at 12.
    """

    kind: Literal["distinct"] = "distinct"
    """Estimates how many different values there are."""
    of: AnyField
    """The field; its values are compared as its `type`."""
    lg_k: Annotated[int, Field(ge=4, le=21)] = 12
    """log2 of the number of registers of a byte each; a series with few values takes less."""

    @override
    def columns(self) -> dict[str, Measure]:
        return {"distinct": Measure(Reduce.DISTINCT, width=self.lg_k)}

    @override
    def inputs(self, records: Records) -> dict[str, Values]:
        column = records.key(self.of)
        if isinstance(column, pa.DictionaryArray):
            return {"distinct": hash_values(column.dictionary)[column.indices.to_numpy()]}
        return {"distinct": hash_values(column)}

    @override
    def rows(self, part: MeasurePart) -> pa.Array:
        return pa.array(part.distinct().estimates(part.slots))


AnyMeasure: TypeAlias = Annotated[
    Count | Sum | Rate | Min | Max | Mean | Last | Histogram | ExponentialHistogram | Quantiles | Distinct,
    Discriminator("kind"),
]
"""Any of the measures, told by `kind`."""


def _columns_of(results: pa.StructArray) -> dict[str, pa.Array]:
    """The fields of result structs, in the types of a data point's columns."""
    names = [field.name for field in results.type]
    return {
        name: pc.cast(column, _POINTS.field(name).type) for name, column in zip(names, results.flatten(), strict=True)
    }
