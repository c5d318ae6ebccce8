"""A batch as a person wants to see it at a prompt: what it is, how large, and its first rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from telflow.attributes import extract_attribute
from telflow.schema import MetricType, Signal

__all__ = ["preview"]

_ROWS = 5
_WIDTH = 36
_NOUNS = {Signal.TRACES: "span", Signal.METRICS: "data point", Signal.LOGS: "log record"}


def preview(
    signal: Signal, records: pa.RecordBatch, resources: pa.RecordBatch, scopes: pa.RecordBatch, num_bytes: int
) -> str:
    """Return a line about a batch's size and a table of its first few records; costs the same for any size.

    >>> from telflow import TelemetryBatch
    >>> TelemetryBatch.empty(Signal.LOGS)
    TelemetryBatch(logs: 0 log records, 0 resources, 0 scopes, 0 B)
    """
    count = records.num_rows
    head = (
        f"TelemetryBatch({signal}: {_counted(count, _NOUNS[signal])}, {_counted(resources.num_rows, 'resource')}, "
        f"{_counted(scopes.num_rows, 'scope')}, {_size(num_bytes)})"
    )
    if not count:
        return head
    first = records.slice(0, _ROWS)
    services = extract_attribute(resources["attributes"], "service.name", pa.string())
    service = services.take(first["resource"]).to_pylist()
    table = [_HEADINGS[signal]]
    for row, name in zip(first.to_pylist(), service, strict=True):
        table.append([_shorten(cell) for cell in _CELLS[signal](row, name)])
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    ]
    more = [f"  and {count - _ROWS} more"] if count > _ROWS else []
    return "\n".join([head, *lines, *more])


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _size(num_bytes: int) -> str:
    size, units = float(num_bytes), ["B", "KiB", "MiB", "GiB"]
    while size >= 1024 and len(units) > 1:  # noqa: PLR2004 - bytes in a KiB
        size, units = size / 1024, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"


def _shorten(cell: object) -> str:
    text = "" if cell is None else str(cell)
    text = " ".join(text.split())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def _time(unix_nano: int) -> str:
    if not unix_nano:
        return "-"
    seconds, nanos = divmod(unix_nano, 10**9)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{nanos // 10**6:03d}"
    except (ValueError, OverflowError, OSError):
        return str(unix_nano)


def _span(row: dict[str, Any], service: str | None) -> list[object]:
    nanos = row["end_time_unix_nano"] - row["start_time_unix_nano"]
    status = {None: "", 0: "unset", 1: "ok", 2: "error"}.get(row["status_code"], row["status_code"])
    started = _time(row["start_time_unix_nano"])
    return [started, service, row["name"], f"{nanos / 1e6:.3f} ms", status, _count(row["attributes"])]


def _log(row: dict[str, Any], service: str | None) -> list[object]:
    body = row["body"] or {}
    text = next((body[kind] for kind in ("str", "int", "double", "bool", "bytes") if body.get(kind) is not None), None)
    severity = row["severity_text"] or row["severity_number"] or None
    time = row["time_unix_nano"] or row["observed_time_unix_nano"]
    return [_time(time), service, severity, text, _count(row["attributes"])]


def _data_point(row: dict[str, Any], service: str | None) -> list[object]:
    value = next((row[name] for name in ("value_int", "value_double", "sum", "count") if row[name] is not None), None)
    known = row["type"] in set(MetricType)
    kind = MetricType(row["type"]).name.lower() if known else row["type"]
    return [_time(row["time_unix_nano"]), service, row["name"], kind, value, row["unit"], _count(row["attributes"])]


def _count(attributes: list[object]) -> int:
    return len(attributes)


_HEADINGS = {
    Signal.TRACES: ["start", "service", "name", "duration", "status", "attributes"],
    Signal.LOGS: ["time", "service", "severity", "body", "attributes"],
    Signal.METRICS: ["time", "service", "name", "type", "value", "unit", "attributes"],
}
_CELLS = {Signal.TRACES: _span, Signal.LOGS: _log, Signal.METRICS: _data_point}
