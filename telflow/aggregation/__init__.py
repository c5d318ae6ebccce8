"""Windowed aggregation of any signal: what is measured, by which keys, in which windows."""

from telflow.aggregation.items import Item, items_of
from telflow.aggregation.kernel import Aggregation
from telflow.aggregation.measures import (
    AnyMeasure,
    Count,
    Distinct,
    ExponentialHistogram,
    Histogram,
    Last,
    Max,
    Mean,
    Min,
    Quantiles,
    Rate,
    Sum,
)
from telflow.aggregation.partial import Partial
from telflow.aggregation.ready import MetricAttribute, MetricName, MetricSelection, Plan, ReadySettings
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
    "Item",
    "Last",
    "Max",
    "Mean",
    "MetricAttribute",
    "MetricName",
    "MetricSelection",
    "Min",
    "Partial",
    "Plan",
    "Quantiles",
    "Rate",
    "ReadySettings",
    "SessionWindow",
    "SlidingWindow",
    "Sum",
    "TumblingWindow",
    "items_of",
    "metrics_of",
    "split_by_key",
]
