"""Span metrics: what is counted of spans, by which dimensions, in which windows."""

from telflow.span_metrics.kernel import SpanMetrics
from telflow.span_metrics.rows import CrossedPart, SpanPart, SpanReader
from telflow.span_metrics.settings import Dimension, Events, Exemplars, SpanMetricsSettings

__all__ = [
    "CrossedPart",
    "Dimension",
    "Events",
    "Exemplars",
    "SpanMetrics",
    "SpanMetricsSettings",
    "SpanPart",
    "SpanReader",
]
