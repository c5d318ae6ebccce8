"""telflow's operators."""

from operators.aggregate import AggregateOut, aggregate, aggregate_with, to_metrics
from operators.coalesce import Coalescer, CoalesceSettings, coalesce
from operators.count import CountMetric, CountSettings, count_records
from operators.cumulative_to_delta import CumulativeToDeltaSettings, cumulative_to_delta
from operators.delta_to_cumulative import DeltaToCumulativeSettings, delta_to_cumulative
from operators.edit_attributes import (
    DeleteAttributes,
    EditAttributesSettings,
    PutAttributes,
    RenameAttributes,
    edit_attributes,
    edit_batch,
)
from operators.filter import Filtered, FilterSettings, filter_batch, filter_records
from operators.log_metrics import LogMetric, LogMetricsSettings, log_metrics
from operators.map_batches import (
    MapBatchesOut,
    lift_arrow,
    lift_polars,
    map_batches,
    map_batches_or_quarantine,
)
from operators.partition import NO_KEY, PartitionSettings, keys_of, partition, partition_batch
from operators.reaggregate import ReaggregateSettings, reaggregate
from operators.redact import Redacted, RedactOut, RedactSettings, redact, redact_batch
from operators.service_graph import ServiceGraphSettings, service_graph
from operators.span_metrics import Dimension, SpanMetrics, SpanMetricsOut, SpanMetricsSettings, span_metrics
from operators.sum import SumMetric, SumSettings, sum_values
from operators.tail_sampling import TailSamplingSettings, tail_sampling
from operators.tap import Tap, tap

__all__ = [
    "NO_KEY",
    "AggregateOut",
    "CoalesceSettings",
    "Coalescer",
    "CountMetric",
    "CountSettings",
    "CumulativeToDeltaSettings",
    "DeleteAttributes",
    "DeltaToCumulativeSettings",
    "Dimension",
    "EditAttributesSettings",
    "FilterSettings",
    "Filtered",
    "LogMetric",
    "LogMetricsSettings",
    "MapBatchesOut",
    "PartitionSettings",
    "PutAttributes",
    "ReaggregateSettings",
    "RedactOut",
    "RedactSettings",
    "Redacted",
    "RenameAttributes",
    "ServiceGraphSettings",
    "SpanMetrics",
    "SpanMetricsOut",
    "SpanMetricsSettings",
    "SumMetric",
    "SumSettings",
    "TailSamplingSettings",
    "Tap",
    "aggregate",
    "aggregate_with",
    "coalesce",
    "count_records",
    "cumulative_to_delta",
    "delta_to_cumulative",
    "edit_attributes",
    "edit_batch",
    "filter_batch",
    "filter_records",
    "keys_of",
    "lift_arrow",
    "lift_polars",
    "log_metrics",
    "map_batches",
    "map_batches_or_quarantine",
    "partition",
    "partition_batch",
    "reaggregate",
    "redact",
    "redact_batch",
    "service_graph",
    "span_metrics",
    "sum_values",
    "tail_sampling",
    "tap",
    "to_metrics",
]
