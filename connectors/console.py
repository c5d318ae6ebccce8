"""Shows batches on a terminal: a line per batch and a few of its records, or OTLP/JSON lines."""

from __future__ import annotations

import sys
from typing import Literal, TextIO

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from pydantic import Field
from typing_extensions import override

from telflow.accounting import LEDGER, Ledger, Outcome, count_by_tenant
from telflow.batch import TelemetryBatch
from telflow.codec import encode
from telflow.schema import MetricType, Signal
from telflow.settings import Settings

__all__ = ["ConsoleSettings", "ConsoleSink", "summarise"]

_STATUS = ("", "OK", "ERROR")
_LONGEST_CELL = 60


class ConsoleSettings(Settings):
    """Shows what flows by. What is shown is data: mind who sees the terminal and its logs."""

    format: Literal["summary", "json"] = "summary"
    """``summary``: a line per batch and one for each of its first records; ``json``: an OTLP/JSON request per line."""

    max_rows: int = Field(default=5, ge=0)
    """Records shown of each batch."""


class ConsoleSink(FixedPartitionedSink[TelemetryBatch, int]):
    """Writes to a text stream; every record counts as delivered, shown or not."""

    def __init__(
        self, settings: ConsoleSettings | None = None, *, stream: TextIO | None = None, ledger: Ledger = LEDGER
    ) -> None:
        """Describe the sink.

        Args:
            settings: What to show; the defaults when not given.
            stream: Where to; standard output at the time of writing when not given.
            ledger: Where delivered records are counted.
        """
        self._settings = settings or ConsoleSettings()
        self._stream = stream
        self._ledger = ledger

    @override
    def list_parts(self) -> list[str]:
        return ["console"]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _ConsolePartition:
        return _ConsolePartition(self._settings, self._stream, self._ledger, step_id, resume_state or 0)


class _ConsolePartition(StatefulSinkPartition[TelemetryBatch, int]):
    def __init__(
        self, settings: ConsoleSettings, stream: TextIO | None, ledger: Ledger, component: str, seen: int
    ) -> None:
        self._settings = settings
        self._stream = stream
        self._ledger = ledger
        self._component = component
        self._seen = seen

    @override
    def write_batch(self, values: list[TelemetryBatch]) -> None:
        stream = self._stream or sys.stdout
        for batch in values:
            if self._settings.format == "summary":
                text = summarise(batch, self._settings.max_rows)
            else:
                text = encode(batch.slice(0, self._settings.max_rows), "json").decode()
            stream.write(text + "\n")
            self._seen += 1
            self._ledger.add_batch(Outcome.DELIVERED, batch, component=self._component)

    @override
    def snapshot(self) -> int:
        (self._stream or sys.stdout).flush()
        return self._seen

    @override
    def close(self) -> None:
        (self._stream or sys.stdout).flush()


def summarise(batch: TelemetryBatch, max_rows: int = 5) -> str:
    """Return a line about `batch` and one for each of its first `max_rows` records.

    >>> print(summarise(TelemetryBatch.empty(Signal.LOGS)))
    logs: 0 records, 0 resources, 0 scopes
    """
    tenants = sorted(name for name in count_by_tenant(batch) if name)
    sizes = f"{batch.num_rows} records, {batch.resources.num_rows} resources, {batch.scopes.num_rows} scopes"
    lines = [f"{batch.signal}: {sizes}" + (f", tenants {', '.join(tenants)}" if tenants else "")]
    shown = batch.slice(0, max_rows)
    services = _services(shown)
    describe = {Signal.TRACES: _span, Signal.LOGS: _log_record, Signal.METRICS: _data_point}[batch.signal]
    for service, row in zip(services, shown.records.to_pylist(), strict=True):  # max_rows of them, not a batch
        lines.append("  " + "  ".join(_printable(cell) for cell in (service, *describe(row)) if cell))
    return "\n".join(lines)


def _services(batch: TelemetryBatch) -> list[str]:
    return [
        next((str(a["str"]) for a in attributes or () if a["key"] == "service.name"), "")
        for attributes in batch.resources["attributes"].take(batch.records["resource"]).to_pylist()
    ]


def _span(row: dict[str, object]) -> tuple[str, ...]:
    duration_ms = (int(str(row["end_time_unix_nano"])) - int(str(row["start_time_unix_nano"]))) / 1e6
    code = row["status_code"]
    status = _STATUS[code] if isinstance(code, int) and 0 <= code < len(_STATUS) else str(code or "")
    return str(row["name"]), f"{duration_ms:.3f} ms", status


def _log_record(row: dict[str, object]) -> tuple[str, ...]:
    body = row["body"]
    text = ""
    if isinstance(body, dict):
        text = next((str(body[kind]) for kind in ("str", "int", "double", "bool") if body[kind] is not None), "…")
    return str(row["severity_text"] or row["severity_number"] or ""), text


def _data_point(row: dict[str, object]) -> tuple[str, ...]:
    value = next((row[name] for name in ("value_int", "value_double") if row[name] is not None), None)
    if value is None:
        value = f"count {row['count']} sum {row['sum']}"
    kind = MetricType(int(str(row["type"]))).name.lower().replace("_", " ")
    return str(row["name"]), kind, f"{value} {row['unit']}".strip()


def _printable(text: str) -> str:
    """A cell of one line that cannot steer the terminal."""
    clean = "".join(c if c.isprintable() else "·" for c in text[: _LONGEST_CELL + 1])
    return clean if len(clean) <= _LONGEST_CELL else clean[: _LONGEST_CELL - 1] + "…"
