"""Decides about complete traces: from what is known of each, to the threshold it is kept with.

A trace of randomness R is kept when R is at least its threshold. One policy *or* another is the lower of their
thresholds, one *and* another the higher: with one R for all policies these are the thresholds of the combination
(OpenTelemetry specification, "Consistent Sampling Decision"), so `th` stays true whatever is combined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from telflow.sampling.policies import (
    AllOf,
    Always,
    AnyOf,
    Composite,
    Function,
    Latency,
    Not,
    Policy,
    Predicate,
    Probabilistic,
    RateLimit,
    SpanCount,
)
from telflow.sampling.predicates import Predicates
from telflow.sampling.trace_index import Ints
from telflow.sampling.trace_state import NEVER, Words, threshold_of

__all__ = ["AskFunction", "Decider", "Mask", "TraceFacts"]

Mask: TypeAlias = npt.NDArray[np.bool_]

_BURST_S = 1.0


@dataclass(frozen=True, slots=True)
class TraceFacts:
    """What is known of some complete traces; all arrays have one value per trace.

    Attributes:
        randomness: R, below 2**56 (uint64).
        tenant: A number for the tenant (uint64).
        bits: Which predicates are true of one of its spans (uint64).
        spans: Number of spans (int64).
        start_unix_nano: Start of the first span (uint64).
        end_unix_nano: End of the last span (uint64).
    """

    randomness: Words
    tenant: Words
    bits: Words
    spans: Ints
    start_unix_nano: Words
    end_unix_nano: Words

    def __len__(self) -> int:
        return len(self.randomness)


AskFunction = Callable[[str], Mask]
"""Is given a function's name; returns which of the traces it wants."""


class Decider:
    """Policies at work, with what rate limits have left.

    Args:
        policies: Asked in this order; a trace is kept when one wants it.
        share: The part of all traces that this decider sees, for rates are of all of them.

    >>> columns = [5, 9], [0, 0], [0, 1], [3, 3], [0, 0], [1, 1]
    >>> facts = TraceFacts(*(np.array(column, np.uint64) for column in columns))
    >>> from telflow.sampling.policies import Status
    >>> Decider((Status(),)).thresholds(facts, at_s=0.0) == [NEVER, 0]
    array([ True,  True])
    """

    def __init__(self, policies: Sequence[Policy], share: float = 1.0) -> None:
        self._policies = AnyOf(policies=tuple(policies))
        self._share = share
        self.predicates = Predicates(policies)
        # By place of the rate in the policies and by tenant: spans that may still be kept, and as of when.
        self._budgets: dict[tuple[str, int], tuple[float, float]] = {}

    def thresholds(self, facts: TraceFacts, at_s: float, ask: AskFunction | None = None) -> Words:
        """Return the threshold of each trace.

        Args:
            facts: Traces decided together, which share the room that rates have.
            at_s: When, in seconds since any one moment; rates grow with it.
            ask: Calls the flow's own functions; without it they want nothing.
        """
        everyone, nobody = np.ones(len(facts), bool), np.zeros(len(facts), bool)
        return _Case(self, facts, at_s, ask).ask_any(self._policies.policies, "", everyone, nobody)

    def state(self) -> list[tuple[str, int, float, float]]:
        """Return what rates have left, as plain data: (place, tenant, spans, as of)."""
        return [(place, tenant, spans, as_of) for (place, tenant), (spans, as_of) in self._budgets.items()]

    def restore(self, state: Sequence[tuple[str, int, float, float]]) -> None:
        """Take over what `state` returned. Rates that are elsewhere among the policies now begin anew."""
        self._budgets = {(place, tenant): (spans, as_of) for place, tenant, spans, as_of in state}

    def spend(self, place: str, tenant: int, rate: float, at_s: float, spans: Ints) -> int:
        """Return how many of some traces, in this order, a rate has room for, and charge it for them.

        A trace fits while anything is left: it may be larger than what is left, and then the next ones wait until
        that is paid off. So in the long run a rate is kept, and no trace is too large for it.
        """
        rate *= self._share
        most = max(rate * _BURST_S, 1.0)
        left, as_of = self._budgets.get((place, tenant), (most, at_s))
        left = min(most, left + rate * max(0.0, at_s - as_of))
        before = np.concatenate([[0], np.cumsum(spans)])
        count = int(np.searchsorted(before[:-1], left, side="left")) if left > 0 else 0
        self._budgets[place, tenant] = (left - float(before[count]), max(at_s, as_of))
        return count


@dataclass(frozen=True, slots=True)
class _Case:
    """One decision about some traces.

    Policies are asked about all traces at once, `eligible` being those that policies before them, in an `and`, want,
    and `kept` those that policies before them, in an `or`, have kept already.
    """

    decider: Decider
    facts: TraceFacts
    at_s: float
    ask: AskFunction | None

    def ask_any(self, policies: Sequence[Policy], place: str, eligible: Mask, kept: Mask) -> Words:
        lowest = self._never()
        for number, policy in enumerate(policies):
            one = self._threshold(policy, f"{place}/{number}", eligible, kept)
            lowest = np.minimum(lowest, one)
            kept = kept | (self.facts.randomness >= one)
        return lowest

    def _threshold(self, policy: Policy, place: str, eligible: Mask, kept: Mask) -> Words:
        match policy:
            case AnyOf():
                return self.ask_any(policy.policies, place, eligible, kept)
            case AllOf():
                return self._ask_all(policy.policies, place, eligible, kept)
            case Composite():
                # Each part is an `and` of its policy and its share of the rate, and the parts are an `or`.
                rates = [RateLimit(spans_per_second=policy.max_spans_per_second * p.share) for p in policy.parts]
                parts = [AllOf(policies=(p.policy, r)) for p, r in zip(policy.parts, rates, strict=True)]
                return self.ask_any(parts, place, eligible, kept)
            case RateLimit():
                return self._limit(policy.spans_per_second, place, eligible, kept)
            case Not():
                unwanted = self._threshold(policy.policy, place, eligible, kept)
                return self._when(eligible & (unwanted == NEVER))
            case Probabilistic():
                threshold = np.uint64(threshold_of(policy.percentage / 100))
                return np.where(eligible, threshold, np.uint64(NEVER))
            case Function():
                return self._when(eligible & self.ask(policy.name)) if self.ask is not None else self._never()
            case _:
                return self._when(eligible & self._is_true(policy))

    def _ask_all(self, policies: Sequence[Policy], place: str, eligible: Mask, kept: Mask) -> Words:
        highest = self._when(eligible)
        for number, policy in enumerate(policies):
            highest = np.maximum(highest, self._threshold(policy, f"{place}/{number}", eligible, kept))
            eligible = eligible & (self.facts.randomness >= highest)
        return highest

    def _is_true(self, policy: Policy) -> Mask:
        facts = self.facts
        match policy:
            case Always():
                return np.ones(len(facts), bool)
            case Latency():
                took = facts.end_unix_nano - np.minimum(facts.start_unix_nano, facts.end_unix_nano)
                upper = policy.upper_threshold
                return _between(took, _nanos(policy.threshold), None if upper is None else _nanos(upper))
            case SpanCount():
                return _between(facts.spans, policy.min_spans, policy.max_spans)
            case _:
                assert isinstance(policy, Predicate)  # noqa: S101 - all others are above
                bit = np.uint64(self.decider.predicates.bit_of(policy))
                return np.asarray((facts.bits & bit) != 0)

    def _limit(self, rate: float, place: str, eligible: Mask, kept: Mask) -> Words:
        """Keep the traces of the highest randomness; the threshold is just above the first that is left out."""
        facts = self.facts
        thresholds = self._never()
        for tenant in np.unique(facts.tenant[eligible]).tolist():
            own = eligible & (facts.tenant == tenant)
            charged = np.flatnonzero(own & ~kept)
            charged = charged[np.argsort(facts.randomness[charged], kind="stable")[::-1]]
            count = self.decider.spend(place, tenant, rate, self.at_s, facts.spans[charged])
            thresholds[own] = 0 if count == len(charged) else facts.randomness[charged[count]] + np.uint64(1)
        return thresholds

    def _never(self) -> Words:
        return np.full(len(self.facts), NEVER, np.uint64)

    def _when(self, wanted: Mask) -> Words:
        return np.where(wanted, np.uint64(0), np.uint64(NEVER))


def _between(values: npt.NDArray[Any], low: int, high: int | None) -> Mask:
    return np.asarray((values >= low) if high is None else (values >= low) & (values <= high))


def _nanos(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1) * 1000
