"""`replay`: what an archive holds, sent once more, to any sink.

A tenant's day into a new backend, a week of traces through changed redaction rules, an incident into a test system.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, FixedPartitionedSink

from connectors.archive.source import ArchiveReadSettings, ArchiveSource, ReplayProgress, part_of
from telflow.batch import TelemetryBatch

__all__ = ["ReplaySettings", "build"]

AnySink = DynamicSink[TelemetryBatch] | FixedPartitionedSink[TelemetryBatch, Any]


class ReplaySettings(ArchiveReadSettings):
    """What to replay: time range, tenant, service, rate; the sink is given to `build`."""


def build(
    settings: ReplaySettings,
    sink: AnySink,
    *,
    on_progress: Callable[[ReplayProgress], None] | None = None,
    flow_id: str = "replay",
) -> Dataflow:
    """Return the dataflow that reads an archive and writes every selected record to `sink`.

    It ends by itself. Run with recovery, an interrupted one resumes at the batch it had reached.

    Args:
        settings: What to read, and how fast.
        sink: Takes the batches; one with partitions gets each tenant's in order in one of them.
        on_progress: Called after each batch, for a progress bar.
        flow_id: Name of the dataflow; recovery knows it by that.

    Raises:
        ArchiveError: A table is missing or damaged.
    """
    flow = Dataflow(flow_id)
    batches = op.input("archive", flow, ArchiveSource(settings, on_progress=on_progress))
    if isinstance(sink, FixedPartitionedSink):
        # What one partition of the source gives goes to one partition of the sink, in its order.
        parts = settings.partitions
        op.output("sink", op.key_on("by_part", batches, lambda batch: str(part_of(batch, parts))), sink)
    else:
        op.output("sink", batches, sink)
    return flow
