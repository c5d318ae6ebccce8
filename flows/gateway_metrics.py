"""Metrics in the gateway: made of what passes, and brought into the form that is asked for. Wiring only."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import bytewax.operators as op
from bytewax.dataflow import Stream
from bytewax.operators import KeyedStream

from operators import (
    NO_KEY,
    aggregate_with,
    count_records,
    cumulative_to_delta,
    delta_to_cumulative,
    log_metrics,
    reaggregate,
    service_graph,
    span_metrics,
    sum_values,
    to_metrics,
)
from telflow.accounting import Ledger
from telflow.batch import TelemetryBatch
from telflow.settings import Settings

if TYPE_CHECKING:
    from flows.gateway import GatewaySettings

__all__ = ["at_end", "convert_metrics", "make_metrics", "tenant_of"]

_Part = TypeVar("_Part", bound=Settings)


def at_end(part: _Part, *, keeps_state: bool) -> _Part:
    """Close windows at the end where no recovery would bring them back after a stop."""
    emit_on_eof = getattr(part, "emit_on_eof", False) or not keeps_state
    return part.model_copy(update={"emit_on_eof": emit_on_eof})


def make_metrics(
    settings: GatewaySettings, stream: Stream[TelemetryBatch], ledger: Ledger, *, keeps_state: bool
) -> dict[str, KeyedStream[TelemetryBatch]]:
    """Return metrics made of what passes, by a name for a step; each batch is of one tenant."""
    made: dict[str, KeyedStream[TelemetryBatch]] = {}
    if settings.span_metrics is not None:
        by_tenant = op.key_on("by_tenant", stream, tenant_of)
        chosen = at_end(settings.span_metrics, keeps_state=keeps_state)
        made["metrics"] = span_metrics("span_metrics", by_tenant, chosen, ledger=ledger).metrics
    if settings.service_graph is not None:
        chosen_graph = at_end(settings.service_graph, keeps_state=keeps_state)
        made["graph"] = service_graph("service_graph", stream, chosen_graph, ledger=ledger)
    if settings.count is not None:
        made["counts"] = count_records("count", stream, at_end(settings.count, keeps_state=keeps_state), ledger=ledger)
    if settings.sum is not None:
        made["sums"] = sum_values("sum", stream, at_end(settings.sum, keeps_state=keeps_state), ledger=ledger)
    if settings.log_metrics is not None:
        made["of_logs"] = log_metrics(
            "log_metrics", stream, at_end(settings.log_metrics, keeps_state=keeps_state), ledger=ledger
        )
    for name, aggregation in settings.aggregate.items():
        chosen_here = at_end(aggregation, keeps_state=keeps_state)
        out = aggregate_with(f"aggregate_{name}", stream, chosen_here, ledger=ledger)
        made[f"aggregated_{name}"] = to_metrics(f"metrics_{name}", out.rows, chosen_here, ledger)
    return made


def convert_metrics(
    settings: GatewaySettings, stream: Stream[TelemetryBatch], ledger: Ledger, *, keeps_state: bool
) -> Stream[TelemetryBatch]:
    """Return the stream with its metrics as they are asked for; each batch is of one tenant."""
    if settings.reaggregate is not None:
        merging = at_end(settings.reaggregate, keeps_state=keeps_state)
        stream = reaggregate("reaggregate", stream, merging, ledger=ledger)
    if settings.delta_to_cumulative is not None:
        stream = delta_to_cumulative("delta_to_cumulative", stream, settings.delta_to_cumulative, ledger=ledger)
    if settings.cumulative_to_delta is not None:
        stream = cumulative_to_delta("cumulative_to_delta", stream, settings.cumulative_to_delta, ledger=ledger)
    return stream


def tenant_of(batch: TelemetryBatch) -> str:
    """Return whose the records of a partitioned batch are; `NO_KEY` when that is unknown."""
    if not batch.num_rows:
        return NO_KEY
    return batch.resources["tenant"][batch.records["resource"][0].as_py()].as_py() or NO_KEY
