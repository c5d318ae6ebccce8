"""Traces as plain rows, batches made of them, and a slow, obvious tail sampler: for tests of tail sampling."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from telflow.accounting import Ledger
from telflow.batch import TelemetryBatch
from telflow.sampling import HeldSpans, Predicates, SpanFacts, TailSampler, TailSamplingSettings
from telflow.sampling.trace_state import NEVER
from tests.spans import EPOCH, SECOND, Span, spans_batch

__all__ = ["Row", "Runner", "SlowSampler", "id_of", "kept_rows", "rows_batch", "trace_id_of"]


@dataclass(frozen=True)
class Row:
    """A span as a test of sampling thinks of it."""

    trace: int
    span: int
    at: int = 0
    """Second in which it comes."""
    root: bool = False
    error: bool = False
    duration: int = SECOND
    tenant: str | None = "acme"
    trace_state: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)


def trace_id_of(number: int) -> bytes:
    """A trace id whose last seven bytes are well mixed."""
    return number.to_bytes(8, "big") + (number * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big")


def id_of(number: int) -> bytes:
    """A span id."""
    return number.to_bytes(8, "big")


def rows_batch(rows: Sequence[Row]) -> TelemetryBatch:
    """The spans in their order."""
    batch = spans_batch(
        [
            Span(
                end=EPOCH + row.at * SECOND + row.duration,
                duration=row.duration,
                tenant=row.tenant,
                status=2 if row.error else None,
                attributes=row.attributes,
            )
            for row in rows
        ]
    )
    parents = [None if row.root else id_of(1 << 40) for row in rows]
    return (
        batch.with_column("trace_id", pa.array([trace_id_of(row.trace) for row in rows], pa.binary(16)))
        .with_column("span_id", pa.array([id_of(row.span) for row in rows], pa.binary(8)))
        .with_column("parent_span_id", pa.array(parents, pa.binary(8)))
        .with_column("trace_state", pa.array([row.trace_state for row in rows], pa.string()))
    )


def kept_rows(batches: Iterable[TelemetryBatch]) -> dict[int, str]:
    """Span number and trace state of every span; none may be there twice."""
    found: dict[int, str] = {}
    for batch in batches:
        spans = batch.records["span_id"].to_pylist()
        for span, state in zip(spans, batch.records["trace_state"].to_pylist(), strict=True):
            number = int.from_bytes(span, "big")
            assert number not in found, f"span {number} came out twice"
            found[number] = state
    return found


class Runner:
    """The kernel as the operator runs it, without an engine: one sampler per part, and the spans on hold."""

    def __init__(self, settings: TailSamplingSettings) -> None:
        self.settings = settings
        self.samplers = [TailSampler(settings) for _ in range(settings.shards)]
        self.held: dict[str, HeldSpans] = {}
        self.ledger = Ledger()
        self.out: list[TelemetryBatch] = []
        self.early = 0
        self._predicates = Predicates(settings.policies)
        self._count = 0

    def add(self, batch: TelemetryBatch, now: int) -> None:
        self._count += 1
        name = str(self._count)
        self.held[name] = HeldSpans(batch)
        for shard, facts in SpanFacts.of(batch, name, self._predicates).split(self.settings.shards):
            self._act(self.samplers[shard].add(facts, now))

    def advance(self, now: int) -> None:
        for sampler in self.samplers:
            self._act(sampler.advance(now))

    def finish(self) -> None:
        for sampler in self.samplers:
            self._act(sampler.finish())

    def restart(self, settings: TailSamplingSettings | None = None) -> None:
        """As a process that ends and another that resumes from what it saved."""
        self.settings = settings or self.settings
        self._predicates = Predicates(self.settings.policies)
        for number, before in enumerate(self.samplers):
            self.samplers[number] = TailSampler(self.settings)
            self.samplers[number].restore(before.state())
        self.held = {name: HeldSpans.from_state(held.state()) for name, held in self.held.items()}

    def _act(self, sampled: Any) -> None:
        self.early += sampled.early
        for name, rows, verdicts in sampled.released:
            kept = self.held[name].release(rows, verdicts, "sample", self.ledger)
            if kept is not None:
                self.out.append(kept)
            if not len(self.held[name]):
                del self.held[name]


@dataclass
class _Open:
    deadline: int
    rows: list[Row] = field(default_factory=list)


class SlowSampler:
    """Span by span, trace by trace: what tail sampling is meant to do, with a tick of one second.

    Args:
        wait_s: `decision_wait`.
        after_root_s: `decision_wait_after_root`.
        threshold: Is given the spans of a trace; returns its rejection threshold.
    """

    def __init__(self, wait_s: int, after_root_s: int | None, threshold: Callable[[list[Row]], int]) -> None:
        self._wait, self._after_root, self._threshold = wait_s, after_root_s, threshold
        self._open: dict[tuple[str | None, int], _Open] = {}
        self._decided: dict[tuple[str | None, int], int] = {}
        self.kept: dict[int, int] = {}
        self.dropped: collections.Counter[tuple[str, str]] = collections.Counter()

    def add(self, row: Row) -> None:
        self.reach(row.at)
        key = (row.tenant, row.trace)
        if key in self._decided:
            self._settle(row, self._decided[key], "not sampled, late")
            return
        trace = self._open.setdefault(key, _Open(row.at + self._wait + 1))
        trace.rows.append(row)
        if row.root and self._after_root is not None:
            trace.deadline = min(trace.deadline, row.at + self._after_root + 1)

    def reach(self, second: int) -> None:
        for key in [key for key, trace in self._open.items() if trace.deadline <= second]:
            rows = self._open.pop(key).rows
            threshold = self._threshold(rows)
            randomness = int.from_bytes(trace_id_of(rows[0].trace)[-7:], "big")
            self._decided[key] = threshold if randomness >= threshold else NEVER
            for row in rows:
                self._settle(row, self._decided[key], "not sampled")

    def _settle(self, row: Row, threshold: int, reason: str) -> None:
        if threshold < NEVER:
            self.kept[row.span] = threshold
        else:
            self.dropped[row.tenant or "", reason] += 1
