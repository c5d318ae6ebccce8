"""A flow with windows whose exact result is known, for tests that kill and rescale a cluster that runs it.

Four partitions each give spans of one service with a known distance in event time, at a known pace; span metrics count
them in windows; what comes out is written to a file per service, each window exactly once: a file is cut back to its
snapshot on a resume. Variables: WINDOWS_OUT, the folder of the output; WINDOWS_PER_PART, how many windows' worth of
spans there are (none: until it is stopped); WINDOWS_HANG, a file on whose appearance worker 1 hangs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.connectors.files import DirSink
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from operators import SpanMetricsSettings, span_metrics
from telflow import Signal, TelemetryBatch
from telflow.codec import decode
from tests.oracle import REQUESTS

PARTS = 4
PER_WINDOW = 500
PER_BATCH = 50
WINDOW_S = 10
NANOS = 1_000_000_000
START_UNIX_NANO = 1_750_000_000 * NANOS
PAUSE = timedelta(milliseconds=20)


def spans(part: str, first: int) -> TelemetryBatch:
    message: Any = REQUESTS[Signal.TRACES]()
    resource = message.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = part
    made = resource.scope_spans.add().spans
    for number in range(first, first + PER_BATCH):
        end = START_UNIX_NANO + number * (WINDOW_S * NANOS // PER_WINDOW)
        made.add(name="GET /", trace_id=b"t" * 16, span_id=b"s" * 8, kind=2, end_time_unix_nano=end)
    return decode(message.SerializeToString(), Signal.TRACES)


class _Part(StatefulSourcePartition[tuple[str, TelemetryBatch], int]):
    def __init__(self, part: str, number: int, end: int | None) -> None:
        self._part, self._number, self._end = part, number, end

    def next_batch(self) -> list[tuple[str, TelemetryBatch]]:
        if self._end is not None and self._number >= self._end:
            raise StopIteration
        batch = spans(self._part, self._number)
        self._number += PER_BATCH
        return [(self._part, batch)]

    def next_awake(self) -> datetime:
        return datetime.now(UTC) + PAUSE

    def snapshot(self) -> int:
        return self._number


class _Parts(FixedPartitionedSource[tuple[str, TelemetryBatch], int]):
    def list_parts(self) -> list[str]:
        return [f"part-{n}" for n in range(PARTS)]

    def build_part(self, _step_id: str, for_part: str, resume_state: int | None) -> _Part:
        windows = os.environ.get("WINDOWS_PER_PART")
        return _Part(for_part, resume_state or 0, None if windows is None else int(windows) * PER_WINDOW)


def counts(batch: TelemetryBatch) -> Iterator[str]:
    """Yield `service start-of-window count` of each window's point."""
    attributes = batch.records["attributes"].to_pylist()
    who = [next(item["str"] for item in items if item["key"] == "service.name") for items in attributes]
    columns = (batch.records[name].to_pylist() for name in ("name", "start_time_unix_nano", "value_int"))
    for name, start, count, service in zip(*columns, who, strict=True):
        if name.endswith(".calls"):
            yield f"{service} {(start - START_UNIX_NANO) // NANOS} {count}"


def hang(item: Any) -> Any:
    """Hang, on one worker only, once a file is there."""
    file = os.environ.get("WINDOWS_HANG")
    if file is not None and Path(file).exists():
        Path(file).unlink(missing_ok=True)
        time.sleep(600)
    return item


flow = Dataflow("windowed")
spans_by_part = op.input("spans", flow, _Parts())
spans_by_part = op.map("work", spans_by_part, hang)
settings = SpanMetricsSettings(
    window=timedelta(seconds=WINDOW_S),
    lateness=timedelta(),
    max_ahead=timedelta(days=36500),
    idle_timeout=None,
    temporality="delta",
    emit_on_eof=False,
)
metrics = span_metrics("red", spans_by_part, settings).metrics
lines = op.flat_map_value("lines", metrics, counts)
out = Path(os.environ.get("WINDOWS_OUT", "windows"))
out.mkdir(exist_ok=True)
op.output("out", lines, DirSink(out, PARTS, assign_file=lambda key: int(key.rpartition("-")[2])))
