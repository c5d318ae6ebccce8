"""tail_sampling: whole traces are gathered, looked at, and kept or dropped as a whole.

Traces are divided into parts (shards) by their id, so that all that is known of a trace comes to one place, whatever
worker received its spans; parts are the keys of the state, and so the number of workers may change. The spans
themselves go elsewhere and only once, as the batches they came in. What decides is in `telflow.sampling`; this is how
it becomes a step of a dataflow:

    spans ─→ split ─→ facts ─→ sample (a key per part) ─→ verdicts ─→ hold (a key per batch) ─→ kept spans
               └────── batches ────────────────────────────────────────┘

So an epoch saves what is known of the open traces, some dozens of bytes each, and the batches that came or went, but
not all spans on hold over and over. Policies that call functions want to see whole traces: with them the spans
themselves go to *sample*, and stay there.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import bytewax.operators as op
import numpy as np
from bytewax.dataflow import Stream, operator
from bytewax.operators import KeyedStream, StatefulBatchLogic
from typing_extensions import override

from telflow.accounting import LEDGER, Ledger
from telflow.batch import TelemetryBatch
from telflow.errors import ConfigError, nearest
from telflow.sampling import (
    Function,
    HeldSpans,
    Predicates,
    Released,
    Sampled,
    SpanFacts,
    TailSampler,
    TailSamplingSettings,
    TraceFunction,
    leaves,
    shards_of_words,
    trace_words,
)
from telflow.schema import Signal

__all__ = ["TailSamplingSettings", "split_by_trace", "split_traced", "tail_sampling"]

_log = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STALL_NANO = 1_000_000_000

_Split: TypeAlias = tuple[str, TelemetryBatch | SpanFacts]
_HELD, _PASSED = "held", "passed"


def split_traced(batch: TelemetryBatch) -> tuple[TelemetryBatch | None, TelemetryBatch | None]:
    """Return the records that can be sampled by trace, and the others; None where there are none.

    The others are records of other signals, and spans without a trace id.
    """
    if not batch.num_rows:
        return None, None
    if batch.signal is not Signal.TRACES:
        return None, batch
    ids = batch.records["trace_id"]
    if not ids.null_count:
        return batch, None
    has_id = ids.is_valid().to_numpy(zero_copy_only=False)
    traced = batch.filter(has_id).compact() if has_id.any() else None
    return traced, batch.filter(~has_id).compact()


def split_by_trace(batch: TelemetryBatch, shards: int) -> list[tuple[int, TelemetryBatch]]:
    """Divide spans, all with a trace id, into parts, all spans of a trace into the same one.

    Returns:
        Number of a part and its spans, in their order, for each part that has any.
    """
    shard = shards_of_words(*trace_words(batch.records["trace_id"]), shards)
    counts = np.bincount(shard, minlength=shards)
    present = np.flatnonzero(counts)
    if len(present) == 1:
        return [(int(present[0]), batch)]
    ordered = batch.take(np.argsort(shard, kind="stable"))
    ends = np.cumsum(counts[present]).tolist()
    slices = itertools.pairwise([0, *ends])
    return [(n, ordered.slice(a, b - a).compact()) for n, (a, b) in zip(present.tolist(), slices, strict=True)]


class _SampleLogic(StatefulBatchLogic[TelemetryBatch | SpanFacts, TelemetryBatch | Released, dict[str, Any]]):
    def __init__(
        self,
        step_id: str,
        sampler: TailSampler,
        state: dict[str, Any] | None,
        *,
        emit_on_eof: bool,
        clock: Callable[[], int],
        ledger: Ledger,
    ) -> None:
        self._step_id = step_id
        self._sampler = sampler
        self._emit_on_eof = emit_on_eof
        self._clock = clock
        self._ledger = ledger
        self._postponed = False
        if state is not None:
            sampler.restore(state)
            sampler.idle_since(clock())

    @override
    def on_batch(self, values: list[TelemetryBatch | SpanFacts]) -> tuple[Iterable[TelemetryBatch | Released], bool]:
        out: list[TelemetryBatch | Released] = []
        for value in values:
            if isinstance(value, TelemetryBatch):
                out += self._act(self._sampler.add_spans(value, self._clock()))
            else:
                out += self._act(self._sampler.add(value, self._clock()))
        return out, self.RETAIN

    @override
    def notify_at(self) -> datetime | None:
        due = self._sampler.due_unix_nano()
        return None if due is None else _EPOCH + timedelta(microseconds=-(-due // 1000))

    @override
    def on_notify(self) -> tuple[Iterable[TelemetryBatch | Released], bool]:
        now, due = self._clock(), self._sampler.due_unix_nano()
        if due is not None and now >= due + _STALL_NANO and not self._postponed:
            # This worker stood still, and spans that came meanwhile wait in front of it. Once: it may just be slow.
            self._postponed = True
            self._sampler.idle_since(now)
            return [], self.RETAIN
        self._postponed = False
        return self._act(self._sampler.advance(now)), self.RETAIN

    @override
    def on_eof(self) -> tuple[Iterable[TelemetryBatch | Released], bool]:
        return self._act(self._sampler.finish()) if self._emit_on_eof else [], self.RETAIN

    @override
    def snapshot(self) -> dict[str, Any]:
        return self._sampler.state()

    def _act(self, sampled: Sampled) -> list[TelemetryBatch | Released]:
        out: list[TelemetryBatch | Released] = []
        for name, rows, verdicts in sampled.released:
            held = self._sampler.held.get(name)
            if held is None:
                out.append((name, rows, verdicts))
                continue
            kept = held.release(rows, verdicts, self._step_id, self._ledger)
            if kept is not None:
                out.append(kept)
            if not len(held):
                del self._sampler.held[name]
        if sampled.early:
            _log.warning(
                "step %r: %d traces decided before they were due: too many, or too large, for what is set",
                self._step_id,
                sampled.early,
            )
        return out


class _HoldLogic(StatefulBatchLogic[TelemetryBatch | Released, TelemetryBatch, dict[str, Any]]):
    """One segment."""

    def __init__(self, step_id: str, state: dict[str, Any] | None, ledger: Ledger) -> None:
        self._step_id = step_id
        self._ledger = ledger
        self._early: list[Released] = []
        self._held: HeldSpans | None = None
        if state is not None:
            self._early = state["early"]
            self._held = None if state["held"] is None else HeldSpans.from_state(state["held"])

    @override
    def on_batch(self, values: list[TelemetryBatch | Released]) -> tuple[Iterable[TelemetryBatch], bool]:
        # Spans and verdicts come by two ways: verdicts may be there first.
        released, self._early = self._early, []
        for value in values:
            if isinstance(value, TelemetryBatch):
                self._held = HeldSpans(value)
            else:
                released.append(value)
        if self._held is None:
            self._early = released
            return [], self.RETAIN
        if not released:
            return [], self.RETAIN
        rows = np.concatenate([rows for _, rows, _ in released])
        verdicts = np.concatenate([verdicts for _, _, verdicts in released])
        kept = self._held.release(rows, verdicts, self._step_id, self._ledger)
        return [] if kept is None else [kept], not len(self._held)

    @override
    def snapshot(self) -> dict[str, Any]:
        return {"held": None if self._held is None else self._held.state(), "early": list(self._early)}


@operator
def tail_sampling(  # noqa: PLR0917 - Bytewax knows no keyword-only parameters
    step_id: str,
    up: Stream[TelemetryBatch],
    settings: TailSamplingSettings,
    functions: Mapping[str, TraceFunction] | None = None,
    clock: Callable[[], int] = time.time_ns,
    ledger: Ledger = LEDGER,
) -> Stream[TelemetryBatch]:
    """Gather traces, and keep those that policies want, whole.

    Records of other signals, and spans without a trace id, pass. Dropped spans are counted in the ledger (reasons
    `not sampled`, `not sampled, decided early` and `not sampled, late`). Open traces survive restarts and changes of
    the number of workers.

    Args:
        step_id: Unique ID.
        up: Batches of any signal and tenant.
        settings: See `TailSamplingSettings`.
        functions: What policies of type `function` call, by name; see `TraceFunction`.
        clock: System time in Unix nanoseconds.
        ledger: Where outcomes are counted.

    Returns:
        Kept spans, with their rejection threshold in `trace_state`, and what passed. The spans of a trace may be in
        several batches, some of which come later than others, by `decision_wait` at most.

    Raises:
        ConfigError: A policy names a function that is not given.

    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> out: list[TelemetryBatch] = []
    >>> flow = Dataflow("example")
    >>> spans = op.input("spans", flow, TestingSource([TelemetryBatch.empty(Signal.TRACES)]))
    >>> kept = tail_sampling("sample", spans, TailSamplingSettings(policies=[{"type": "status"}]))
    >>> op.output("kept", kept, TestingSink(out))
    >>> run_main(flow)
    """
    given = functions or {}
    wanted = {leaf.name for leaf in leaves(settings.policies) if isinstance(leaf, Function)}
    for name in sorted(wanted - set(given)):
        hint = nearest(name, given)
        raise ConfigError(
            f"step {step_id!r}: policy of type function: no function {name!r} is given"
            + (f"; did you mean {hint!r}?" if hint else " in the argument functions")
        )
    called = {name: given[name] for name in wanted}
    predicates, shards = Predicates(settings.policies), settings.shards

    def split(batch: TelemetryBatch) -> list[_Split]:
        traced, others = split_traced(batch)
        out: list[_Split] = [] if others is None else [(_PASSED, others)]
        if traced is None:
            return out
        if called:
            return [*out, *((f"{number}/{shards}", part) for number, part in split_by_trace(traced, shards))]
        # A name that no other batch has, in this run or another: nothing in a worker says which it is.
        name = f"{_HELD}/{secrets.token_hex(12)}"
        facts = SpanFacts.of(traced, name, predicates).split(shards)
        return [*out, (name, traced), *((f"{number}/{shards}", part) for number, part in facts)]

    def sample(state: dict[str, Any] | None) -> _SampleLogic:
        return _SampleLogic(
            step_id,
            TailSampler(settings, step_id, called),
            state,
            emit_on_eof=settings.emit_on_eof,
            clock=clock,
            ledger=ledger,
        )

    def hold(state: dict[str, Any] | None) -> _HoldLogic:
        return _HoldLogic(step_id, state, ledger)

    def to_segment(item: tuple[str, Any]) -> tuple[str, Any]:
        return item[1][0], item[1]

    traced = op.branch("traced", op.flat_map("split", up, split), lambda item: item[0] != _PASSED)
    batches = op.branch("batches", traced.trues, lambda item: item[0].startswith(_HELD))
    sampled = op.branch(
        "sampled",
        op.stateful_batch("sample", batches.falses, sample),
        lambda item: isinstance(item[1], TelemetryBatch),
    )
    segments: KeyedStream[Any] = op.merge("segments", batches.trues, op.map("verdicts", sampled.falses, to_segment))
    released = op.stateful_batch("hold", segments, hold)
    kept = [op.key_rm(name, stream) for name, stream in (("kept", sampled.trues), ("released", released))]
    return op.merge("out", *kept, op.key_rm("passed", traced.falses))
