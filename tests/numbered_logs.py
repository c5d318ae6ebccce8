"""Log records told apart by a number, and which of them an archive holds how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from connectors.archive.layout import to_rows
from connectors.archive.table import ArchiveTable
from telflow import Signal, TelemetryBatch
from tests.oracle import REQUESTS, batch_from_message

NOON = 1_750_000_000_000_000_000
"""A moment of 2025-06-15 in nanoseconds."""


def logs(
    numbers: Iterable[int], *, tenant: str | None = None, service: str = "cart", start: int = NOON, step: int = 1
) -> TelemetryBatch:
    """One log record per number, `step` nanoseconds a number after `start`, the number in `flags`."""
    request: Any = REQUESTS[Signal.LOGS]()
    resource = request.resource_logs.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    records = resource.scope_logs.add().log_records
    for number in numbers:
        records.add(time_unix_nano=start + number * step, flags=number).body.string_value = f"n{number}"
    return batch_from_message(request, Signal.LOGS, tenant)


def rows(numbers: Iterable[int], **options: Any) -> pa.Table:
    """The archive rows of `logs`."""
    return to_rows([logs(numbers, **options)])


def archived(archive: Path, signal: Signal = Signal.LOGS) -> Counter[int]:
    """How often each number stands in an archive, as any reader of the Delta table sees it."""
    dataset = ArchiveTable.open(archive, signal).delta.to_pyarrow_dataset()
    return Counter(dataset.to_table(columns=["flags"])["flags"].to_pylist())
