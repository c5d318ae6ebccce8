"""The tail sampler: spans in, verdicts on them out, for one part of all traces. No clock and no I/O of its own.

Time is counted in ticks of `interval`. A span that comes in tick a wants its trace decided in tick a + wait + 1, so
that the wait is over for the latest of that tick; the earliest wish of a trace's spans holds. When a tick is reached,
first the spans that came before it join their traces, then all traces due by then are decided, those of one tick
together and in the order of ticks. So it does not matter how spans are cut into batches, nor whether ticks are reached
one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import numpy as np

from telflow.batch import TelemetryBatch
from telflow.errors import BatchError
from telflow.sampling.clock import SamplingClock
from telflow.sampling.decider import AskFunction, Decider, Mask
from telflow.sampling.decision_cache import DecisionCache
from telflow.sampling.functions import CompleteTraces, TraceFunction, ask_function
from telflow.sampling.held_spans import NEVER_EARLY, NEVER_LATE, HeldSpans
from telflow.sampling.open_traces import OpenTraces
from telflow.sampling.segments import Decided, Released, Segments
from telflow.sampling.settings import TailSamplingSettings
from telflow.sampling.span_facts import SpanFacts
from telflow.sampling.trace_index import Ints, TraceKeys
from telflow.sampling.trace_state import NEVER, UNKNOWN, Words

__all__ = ["Sampled", "TailSampler"]

_STATE_VERSION = 2
_FLUSH_ROWS = 16_384
_KEPT_WHEN_FULL = 0.9


@dataclass(slots=True)
class Sampled:
    """What a step of the sampler gave.

    Attributes:
        released: Spans that are decided: their segment, their row numbers there, and a verdict on each.
        early: How many traces were decided before they were due, because bounds were exceeded.
    """

    released: list[Released] = field(default_factory=list)
    early: int = 0


class TailSampler:
    """Gathers traces and decides about them.

    Args:
        settings: See `TailSamplingSettings`; bounds and rates are shared by `settings.shards` samplers.
        step_id: Names the step in errors of functions.
        functions: What policies of type `function` call, by name. They see only spans that `add_spans` took in.

    >>> sampler = TailSampler(TailSamplingSettings(policies=[{"type": "always"}]))
    >>> sampler.advance(now_unix_nano=0)
    Sampled(released=[], early=0)
    """

    def __init__(
        self,
        settings: TailSamplingSettings,
        step_id: str = "tail_sampling",
        functions: Mapping[str, TraceFunction] | None = None,
    ) -> None:
        self._settings = settings
        self._interval = _nanos(settings.interval)
        self._wait = -(-_nanos(settings.decision_wait) // self._interval) + 1
        after_root = settings.decision_wait_after_root
        self._wait_after_root = None if after_root is None else -(-_nanos(after_root) // self._interval) + 1
        self._max_traces = settings.per_shard(settings.max_traces)
        self._max_bytes = settings.per_shard(settings.max_bytes)
        self._decider = Decider(settings.policies, 1 / settings.shards)
        self._step_id = step_id
        self._functions = functions or {}
        self._clock = SamplingClock(settings)
        self._tick = -(2**62)
        self._tenants: dict[str | None, int] = {}
        self._pending: list[SpanFacts] = []
        self._pending_rows = 0
        self._traces = OpenTraces()
        self._segments = Segments()
        self._cache = DecisionCache(settings.per_shard(settings.decision_cache))
        self._count = 0
        self.held: dict[str, HeldSpans] = {}
        """Spans that `add_spans` took in, by segment; whoever acts on what is released takes them from here."""

    @property
    def open_traces(self) -> int:
        """Number of traces on hold; spans of the current tick may open more."""
        return len(self._traces)

    def add_spans(self, batch: TelemetryBatch, now_unix_nano: int) -> Sampled:
        """Take in spans, all of which have a trace id, and hold them here."""
        self._count += 1
        name = f"here/{self._count}"
        self.held[name] = HeldSpans(batch)
        return self.add(SpanFacts.of(batch, name, self._decider.predicates), now_unix_nano)

    def add(self, facts: SpanFacts, now_unix_nano: int) -> Sampled:
        """Take in facts about spans that are held elsewhere."""
        out = Sampled()
        for part, tick in self._clock.split(facts, now_unix_nano):
            self._reach(tick, out)
            self._pending.append(part)
            self._pending_rows += len(part)
            if self._pending_rows >= _FLUSH_ROWS:
                self._flush(out)
        return out

    def due_unix_nano(self) -> int | None:
        """System time at which `advance` has something to do if nothing comes until then."""
        if self._pending:
            return self._clock.system_time_of(self._tick + 1)
        if not len(self._traces):
            return None
        return self._clock.system_time_of(max(self._tick + 1, int(self._traces.deadline.min())))

    def idle_since(self, system_unix_nano: int) -> None:
        """Say that time stood still until this moment: after a restart, or a stall of the process."""
        self._clock.idle_since(system_unix_nano)

    def advance(self, now_unix_nano: int) -> Sampled:
        """Let time pass without spans."""
        out = Sampled()
        self._reach(self._clock.advance(now_unix_nano), out)
        return out

    def finish(self) -> Sampled:
        """Decide all open traces."""
        out = Sampled()
        self._flush(out)
        self._decide_due(2**62, out)
        return out

    def _reach(self, tick: int, out: Sampled) -> None:
        if tick <= self._tick:
            return
        self._flush(out)
        self._decide_due(tick, out)
        self._tick = tick

    def _flush(self, out: Sampled) -> None:
        """Let the spans that wait join their traces."""
        pending, self._pending, self._pending_rows = self._pending, [], 0
        if not pending:
            return
        keys = self._keys(pending)
        slots = self._traces.find(keys)
        unknown = np.flatnonzero(slots < 0)
        if unknown.size:
            new = keys.at(unknown)
            verdicts = self._cache.get(new, self._tick)
            late = verdicts != UNKNOWN
            slots = slots.copy()
            if late.any():
                is_late, of_span = np.zeros(len(slots), bool), np.empty(len(slots), np.uint64)
                is_late[unknown[late]] = True
                of_span[unknown] = np.where(verdicts == NEVER, np.uint64(NEVER_LATE), verdicts)
                pending = list(self._part_with_late(pending, is_late, of_span, out))
                new, slots = new.at(~late), slots[~is_late]
                unknown = np.flatnonzero(slots < 0)
            slots[unknown] = self._traces.open(new)
        if len(slots):
            self._join(pending, slots)
            here = [facts for facts in pending if len(facts)]
            self._segments.open(here, slots, self._traces.deadline[slots])
            self._keep_bounds(out)

    @staticmethod
    def _part_with_late(pending: list[SpanFacts], is_late: Mask, verdicts: Words, out: Sampled) -> Iterator[SpanFacts]:
        """Let spans of traces decided before go the way of these; yield the facts about the others."""
        start = 0
        for facts in pending:
            here = slice(start, start := start + len(facts))
            mine = is_late[here]
            if mine.any():
                out.released.append((facts.segment, facts.rows[mine], verdicts[here][mine]))
                yield facts.at(np.flatnonzero(~mine))
            else:
                yield facts

    def _join(self, pending: list[SpanFacts], slots: Ints) -> None:
        """Add spans to their traces, whose slots are given."""
        explicit = None
        if any(facts.explicit is not None for facts in pending):
            given = [np.full(len(f), UNKNOWN, np.uint64) if f.explicit is None else f.explicit for f in pending]
            explicit = np.concatenate(given)
        self._traces.add(
            slots,
            self._tick + self._wait,
            start=np.concatenate([facts.start for facts in pending]),
            end=np.concatenate([facts.end for facts in pending]),
            bits=np.concatenate([facts.bits for facts in pending]),
            explicit=explicit,
        )
        if self._wait_after_root is not None:
            roots = np.concatenate([facts.root for facts in pending])
            if roots.any():
                self._traces.hasten(slots[roots], self._tick + self._wait_after_root)
                self._segments.hasten(self._tick + self._wait_after_root)

    def _keys(self, pending: list[SpanFacts]) -> TraceKeys:
        tenants = []
        for facts in pending:
            numbers = [self._tenants.setdefault(name, len(self._tenants)) for name in facts.tenants]
            tenants.append(np.array(numbers, np.uint32)[facts.tenant])
        high = np.concatenate([facts.high for facts in pending])
        return TraceKeys(high, np.concatenate([facts.low for facts in pending]), np.concatenate(tenants))

    def _decide_due(self, tick: int, out: Sampled) -> None:
        for number, slots in self._traces.due(tick):
            self._decide(slots, number, out)

    def _keep_bounds(self, out: Sampled) -> None:
        """Decide early what is beyond the bounds: traces that are too large, then the oldest."""
        large = np.flatnonzero(self._traces.spans > self._settings.max_spans_per_trace)
        if large.size:
            self._decide(self._traces.by_age(large), self._tick, out, early=True)
        surplus = 0
        if len(self._traces) > self._max_traces:
            surplus = len(self._traces) - int(self._max_traces * _KEPT_WHEN_FULL)
        held = self._segments.num_bytes
        if held > self._max_bytes and len(self._traces):
            # The mean size of a span stands for the size of each: what counts is that enough goes.
            cumulated = np.cumsum(self._traces.spans[self._traces.by_age()])
            share = 1 - self._max_bytes * _KEPT_WHEN_FULL / held
            surplus = max(surplus, int(np.searchsorted(cumulated, share * cumulated[-1])) + 1)
        if surplus:
            self._decide(self._traces.by_age()[:surplus], self._tick, out, early=True)

    def _decide(self, slots: Ints, tick: int, out: Sampled, *, early: bool = False) -> None:
        """Decide about open traces, the oldest first, and let them go."""
        traces = self._traces
        facts = traces.facts(slots)
        thresholds = self._decider.thresholds(facts, tick * self._interval / 1e9, self._asker(slots))
        decision = np.where(facts.randomness >= thresholds, thresholds, np.uint64(NEVER))
        self._cache.put(traces.keys(slots), decision, max(tick, self._tick))
        verdicts = np.where(decision == NEVER, np.uint64(NEVER_EARLY), decision) if early else decision
        out.released += self._segments.decide(Decided(slots, verdicts, traces.high, tick, at_once=early))
        traces.close(slots)
        if early:
            out.early += len(slots)

    def _asker(self, slots: Ints) -> AskFunction | None:
        if not self._functions:
            return None
        numbers = np.full(self._traces.high + 1, -1)
        numbers[slots] = np.arange(len(slots))
        here = self._segments.places_in(self.held)
        parts = [(self.held[name], rows, numbers[of_span]) for name, rows, of_span in here]
        complete = CompleteTraces(parts, len(slots))
        return lambda name: ask_function(self._step_id, self._functions, name, complete)

    def state(self) -> dict[str, Any]:
        """Return all but the spans held elsewhere, as plain, versioned data that later changes do not touch."""
        order = self._traces.by_age()
        places = np.full(self._traces.high, -1)
        places[order] = np.arange(len(order))
        return {
            "version": _STATE_VERSION,
            "clock": self._clock.state(),
            "tick": self._tick,
            "interval": self._interval,
            "tenants": list(self._tenants),
            "pending": [facts.state() for facts in self._pending],
            "predicates": list(self._decider.predicates.names),
            "budgets": self._decider.state(),
            "traces": self._traces.state(order),
            "segments": self._segments.state(places),
            "cache": self._cache.state(),
            "count": self._count,
            "held": {name: held.state() for name, held in self.held.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned, before anything is added; settings may be others now.

        Traces opened under other settings keep the deadline they had; what they are remembered by is what both the old
        and the new policies ask.

        Raises:
            BatchError: `state` is of a version this one cannot read.
        """
        if state.get("version") != _STATE_VERSION:
            raise BatchError(
                f"tail_sampling: expected recovered state of version {_STATE_VERSION}, got {state.get('version')}: "
                "drain the flow with the telflow that wrote it before the upgrade"
            )
        predicates, names = self._decider.predicates, state["predicates"]
        self._clock.restore(state["clock"])
        self._tenants = {name: number for number, name in enumerate(state["tenants"])}
        self._pending = [SpanFacts.from_state(kept) for kept in state["pending"]]
        self._pending = [replace(facts, bits=predicates.translate(facts.bits, names)) for facts in self._pending]
        self._pending_rows = sum(map(len, self._pending))
        self._decider.restore(state["budgets"])
        self._traces.restore(state["traces"], lambda bits: predicates.translate(bits, names))
        self._segments.restore(state["segments"])
        self._cache.restore(state["cache"])
        self._count = state["count"]
        self.held = {name: HeldSpans.from_state(kept) for name, kept in state["held"].items()}
        self._tick = state["tick"]
        if state["interval"] != self._interval:
            self._tick = self._tick * state["interval"] // self._interval
            self._traces.rescale(state["interval"], self._interval)
            self._segments.rescale(state["interval"], self._interval)


def _nanos(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1) * 1000
