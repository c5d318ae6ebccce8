"""Metric streams: their identity, what is remembered of them, and conversions that need that."""

from telflow.metric_streams.logic import convert_streams
from telflow.metric_streams.reaggregation import GroupSelector, ReaggregateSettings, Reaggregation, split_by_group
from telflow.metric_streams.selection import Converted, Selector, split_by_stream
from telflow.metric_streams.settings import ConversionSettings
from telflow.metric_streams.to_cumulative import DeltaToCumulativeSettings, ToCumulative
from telflow.metric_streams.to_delta import CumulativeToDeltaSettings, ToDelta

__all__ = [
    "ConversionSettings",
    "Converted",
    "CumulativeToDeltaSettings",
    "DeltaToCumulativeSettings",
    "GroupSelector",
    "ReaggregateSettings",
    "Reaggregation",
    "Selector",
    "ToCumulative",
    "ToDelta",
    "convert_streams",
    "split_by_group",
    "split_by_stream",
]
