"""Measures: each gives what a plain computation over the values gives, however they are split and merged."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from telflow.accumulator import Accumulator
from telflow.aggregation.measures import AnyMeasure, MeasurePart
from telflow.fields import Records
from telflow.schema import MetricType, Signal
from tests.aggregation_reference import exponential
from tests.spans import EPOCH, Span, spans_batch
from tests.strategies import thorough

MEASURES: dict[str, tuple[dict[str, Any], int]] = {
    "count": ({"kind": "count", "of": "v"}, MetricType.SUM),
    "records": ({"kind": "count"}, MetricType.SUM),
    "sum": ({"kind": "sum", "of": "v", "monotonic": True}, MetricType.SUM),
    "rate": ({"kind": "rate", "of": "v"}, MetricType.GAUGE),
    "min": ({"kind": "min", "of": "v"}, MetricType.GAUGE),
    "max": ({"kind": "max", "of": "v"}, MetricType.GAUGE),
    "mean": ({"kind": "mean", "of": "v"}, MetricType.GAUGE),
    "last": ({"kind": "last", "of": "v"}, MetricType.GAUGE),
    "histogram": ({"kind": "histogram", "of": "v", "bounds": [-1, 0, 2.5]}, MetricType.HISTOGRAM),
    "exponential": (
        {"kind": "exponential_histogram", "of": "v", "max_size": 4},
        MetricType.EXPONENTIAL_HISTOGRAM,
    ),
    "quantiles": ({"kind": "quantiles", "of": "v", "quantiles": [0, 0.5, 1]}, MetricType.SUMMARY),
    "distinct": ({"kind": "distinct", "of": "v"}, MetricType.GAUGE),
}
LENGTH_S = 10.0
_adapter: TypeAdapter[Any] = TypeAdapter(AnyMeasure)
_values = st.sampled_from([0, 1, -1, 2.5, -0.25, 1024, 1e-3, 3, 3, "text", None])


def _records(values: list[Any], times: list[int]) -> Records:
    spans = [
        Span(EPOCH + time, attributes={} if v is None else {"v": v}) for v, time in zip(values, times, strict=True)
    ]
    batch = spans_batch(spans)
    return Records(Signal.TRACES, batch.records, batch.resources, batch.scopes)


def _accumulated(measure: Any, values: list[Any], times: list[int], cuts: list[int]) -> MeasurePart:
    """Two series: of all values, and of none; folded part by part, the last part first."""
    columns = {f"m.{name}": column for name, column in measure.columns().items()}
    whole = Accumulator(columns)
    whole.grow(2)
    edges = sorted({0, len(values), *(cut % (len(values) + 1) for cut in cuts)})
    for start, end in reversed(list(itertools.pairwise(edges))):
        part = Accumulator(columns)
        inputs = measure.inputs(_records(values[start:end], times[start:end]))
        part.add(np.zeros(end - start, np.int64), {f"m.{name}": found for name, found in inputs.items()}, slots=1)
        whole.merge(part, np.array([0]), slots=2)
    return MeasurePart(whole, "m", np.array([0, 1]), np.array([LENGTH_S, LENGTH_S]))


def _expected(name: str, values: list[Any], times: list[int]) -> Any:
    found = [(time, float(v)) for v, time in zip(values, times, strict=True) if isinstance(v, int | float)]
    numbers = [number for _, number in found]
    summary = {
        "count": len(numbers),
        "sum": sum(numbers),
        "min": min(numbers, default=None),
        "max": max(numbers, default=None),
    }
    match name:
        case "count" | "records" | "distinct":
            there = [str(v) for v in values if v is not None]
            return {"count": len(there), "records": len(values), "distinct": len(set(there))}[name]
        case "rate" | "sum":
            return pytest.approx(sum(numbers) / (LENGTH_S if name == "rate" else 1))
        case "min" | "max":
            return summary[name]
        case "mean":
            return pytest.approx(statistics.fmean(numbers)) if numbers else None
        case "last":
            return max(found)[1] if found else None
        case "histogram":
            edges = [-math.inf, -1, 0, 2.5, math.inf]
            counts = [sum(low < n <= high for n in numbers) for low, high in itertools.pairwise(edges)]
            return {**summary, "bucket_counts": counts, "explicit_bounds": [-1.0, 0.0, 2.5]}
        case "exponential":
            return {**summary, **exponential(numbers, 4)}
        case _:
            ordered = sorted(numbers)
            ranks = [(q, ordered[math.floor(q * (len(ordered) - 1))]) for q in (0, 0.5, 1)] if ordered else []
            pairs = [{"quantile": q, "value": pytest.approx(value, rel=0.01)} for q, value in ranks]
            return {"count": len(numbers), "sum": sum(numbers), "quantile_values": pairs}


@pytest.mark.parametrize("name", MEASURES)
@thorough(15)
@given(
    pairs=st.lists(st.tuples(_values, st.integers(0, 3)), max_size=12), cuts=st.lists(st.integers(0, 12), max_size=3)
)
def test_equal_to_a_plain_computation(name: str, pairs: list[tuple[Any, int]], cuts: list[int]) -> None:
    """Of values with equal and different times, beside what is no number; a series without values has none."""
    measure = _adapter.validate_python(MEASURES[name][0])
    values, times = [v for v, _ in pairs], [t for _, t in pairs]
    got, nothing = measure.rows(_accumulated(measure, values, times, cuts)).to_pylist()
    expected = _expected(name, values, times)
    if isinstance(expected, dict) and "sum" in expected:
        assert got.pop("sum") == pytest.approx(expected.pop("sum"))
    assert got == expected
    empty = _expected(name, [], [])
    assert nothing == empty


@pytest.mark.parametrize("name", MEASURES)
def test_points_have_the_columns_of_their_kind(name: str) -> None:
    """The kind of metric, whether it has a temporality, and a value for each series that has one."""
    options, kind = MEASURES[name]
    measure = _adapter.validate_python(options)
    points = measure.points(measure.rows(_accumulated(measure, [1, 2], [0, 0], [])))
    assert points["type"] == kind
    assert measure.cumulates == (kind in (MetricType.SUM, MetricType.HISTOGRAM, MetricType.EXPONENTIAL_HISTOGRAM))
    column = next(points[c] for c in ("value_double", "value_int", "count") if c in points)
    assert isinstance(column, pa.Array)
    assert len(column) == 2
    assert column[0].is_valid


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "histogram", "of": "v", "bounds": [1, 1]},
        {"kind": "histogram", "of": "v", "bounds": [float("inf")]},
        {"kind": "quantiles", "of": "v", "quantiles": [1.5]},
        {"kind": "quantiles", "of": "v", "quantiles": [0.9, 0.5]},
        {"kind": "distinct", "of": "v", "lg_k": 3},
        {"kind": "exponential_histogram", "of": "v", "max_size": 1},
        {"kind": "sum"},
        {"kind": "median", "of": "v"},
    ],
)
def test_impossible_measures_are_refused(options: dict[str, Any]) -> None:
    """When settings are read."""
    with pytest.raises(ValidationError):
        _adapter.validate_python(options)
