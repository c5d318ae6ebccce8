"""Windowed aggregation of any signal: what is measured, by which keys, in which windows."""

from telflow.aggregation.kernel import Aggregation
from telflow.aggregation.measures import (
    AnyMeasure,
    Count,
    Distinct,
    ExponentialHistogram,
    Histogram,
    Max,
    Mean,
    Min,
    Quantiles,
    Rate,
    Sum,
)
from telflow.aggregation.partial import Partial
from telflow.aggregation.results import metrics_of
from telflow.aggregation.rows import split_by_key
from telflow.aggregation.settings import AggregateSettings, SessionWindow, SlidingWindow, TumblingWindow

__all__ = [
    "AggregateSettings",
    "Aggregation",
    "AnyMeasure",
    "Count",
    "Distinct",
    "ExponentialHistogram",
    "Histogram",
    "Max",
    "Mean",
    "Min",
    "Partial",
    "Quantiles",
    "Rate",
    "SessionWindow",
    "SlidingWindow",
    "Sum",
    "TumblingWindow",
    "metrics_of",
    "split_by_key",
]
