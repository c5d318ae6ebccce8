"""Policies as thresholds: each alone, and combined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from telflow.sampling.decider import Decider, TraceFacts
from telflow.sampling.policies import Policy
from telflow.sampling.trace_state import NEVER, threshold_of

POLICIES: TypeAdapter[tuple[Policy, ...]] = TypeAdapter(tuple[Policy, ...])
HALF = 1 << 55


def decider(*policies: dict[str, Any], share: float = 1.0) -> Decider:
    return Decider(POLICIES.validate_python(policies), share)


def facts(count: int, **columns: Any) -> TraceFacts:
    base = {
        "randomness": np.arange(count) * (NEVER // count),
        "tenant": np.zeros(count),
        "bits": np.zeros(count),
        "spans": np.ones(count),
        "start_unix_nano": np.zeros(count),
        "end_unix_nano": np.arange(count) * 10**9,
    }
    made: dict[str, Any] = {name: np.asarray(value).astype(np.uint64) for name, value in (base | columns).items()}
    made["spans"] = made["spans"].astype(np.int64)
    return TraceFacts(**made)


def wanted(policy: dict[str, Any], count: int = 8, **columns: Any) -> list[bool]:
    found = decider(policy).thresholds(facts(count, **columns), 0.0)
    assert set(found.tolist()) <= {0, NEVER}
    return [value == 0 for value in found.tolist()]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"type": "always"}, range(8)),
        ({"type": "latency", "threshold": "3s"}, range(3, 8)),
        ({"type": "latency", "threshold": "3s", "upper_threshold": "5s"}, range(3, 6)),
        ({"type": "span_count", "min_spans": 5}, [5, 6, 7]),
        ({"type": "span_count", "max_spans": 2}, [1, 2]),
        ({"type": "not", "policy": {"type": "latency", "threshold": "3s"}}, range(3)),
        ({"type": "status"}, [1, 3]),
    ],
)
def test_what_a_policy_wants(policy: dict[str, Any], expected: Any) -> None:
    """Bounds are inclusive."""
    found = wanted(policy, spans=np.arange(8), bits=[0, 1, 0, 1, 0, 0, 0, 0])
    assert [n for n in range(8) if found[n]] == list(expected)


def test_combinations_are_the_lowest_and_the_highest_threshold() -> None:
    """And, or, and a share of what fits."""
    both = {"type": "and", "policies": [{"type": "status"}, {"type": "probabilistic", "percentage": 50}]}
    rare = {"type": "probabilistic", "percentage": 1}
    found = decider(both, rare).thresholds(facts(4, bits=[1, 0, 1, 0]), 0.0)
    assert found.tolist() == [HALF, threshold_of(0.01)] * 2
    either = {"type": "or", "policies": [{"type": "status"}, {"type": "probabilistic", "percentage": 50}]}
    assert decider(either).thresholds(facts(4, bits=[1, 0, 1, 0]), 0.0).tolist() == [0, HALF] * 2


def test_a_rate_keeps_the_traces_of_the_highest_randomness() -> None:
    """Per tenant, and with a threshold just above what is left out; what was kept otherwise costs nothing."""
    rate = {"type": "rate_limit", "spans_per_second": 3}
    columns = {"tenant": [0] * 6 + [1] * 2, "bits": [0, 0, 0, 0, 0, 1, 0, 0]}
    case = facts(8, **columns)
    one = decider({"type": "status"}, rate)
    found = one.thresholds(case, 100.0)
    kept = case.randomness >= found
    assert kept.tolist() == [False, False, True, True, True, True, True, True]
    assert found[0] == case.randomness[1] + 1
    assert found[6] == 0
    # The first tenant has nothing left, the second one span; the next second has three again.
    assert (case.randomness >= one.thresholds(case, 100.0)).tolist() == [False] * 5 + [True, False, True]
    assert int((case.randomness >= one.thresholds(case, 101.0))[:5].sum()) == 3


def test_a_rate_is_kept_in_the_long_run() -> None:
    """Also with traces larger than the rate, and over a restart."""
    one = decider({"type": "rate_limit", "spans_per_second": 10}, share=0.5)
    total = 0
    for second in range(200):
        case = facts(4, spans=[7, 7, 7, 7])
        total += 7 * int((case.randomness >= one.thresholds(case, float(second))).sum())
        after = decider({"type": "rate_limit", "spans_per_second": 10}, share=0.5)
        after.restore(one.state())
        one = after
    assert 990 <= total <= 1015


def test_composite_goes_in_order_and_shares_its_rate() -> None:
    """Errors get their part; what finds no room there may find it in the next."""
    policy = {
        "type": "composite",
        "max_spans_per_second": 10,
        "parts": [{"policy": {"type": "status"}, "share": 0.2}, {"policy": {"type": "always"}, "share": 0.3}],
    }
    case = facts(10, bits=[0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    kept = case.randomness >= decider(policy).thresholds(case, 0.0)
    assert kept.tolist() == [False] * 5 + [True] * 5


def test_a_function_is_asked_and_without_one_nobody_wants() -> None:
    """A mask by name; a decider that was given no way to ask keeps nothing for it."""
    one = decider({"type": "function", "name": "odd"})
    case = facts(4)
    asked: list[str] = []

    def ask(name: str) -> Any:
        asked.append(name)
        return np.array([False, True, False, True])

    assert one.thresholds(case, 0.0, ask).tolist() == [NEVER, 0, NEVER, 0]
    assert asked == ["odd"]
    assert one.thresholds(case, 0.0).tolist() == [NEVER] * 4
