"""Thresholds and randomness in `trace_state`, against the specification's own words and a slow reading of them."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telflow.sampling.trace_state import (
    NEVER,
    UNKNOWN,
    adjusted_counts,
    raise_thresholds,
    randomness,
    read_trace_state,
    threshold_of,
)

NO_ID = np.zeros(1, np.uint64)


def raised(state: str, threshold: int, low: int = (1 << 64) - 1) -> str:
    words = np.array([low], np.uint64)
    out: str = raise_thresholds(pa.array([state]), words, np.array([threshold], np.uint64))[0].as_py()
    return out


@pytest.mark.parametrize(
    ("probability", "text"),
    [(1.0, "0"), (0.5, "8"), (0.25, "c"), (0.01, "fd70a"), (0.1, "e666"), (2**-56, "ffffffffffffff")],
)
def test_threshold_of_a_probability(probability: float, text: str) -> None:
    """(1 - p) * 2**56, and the digits the specification writes."""
    assert f"{threshold_of(probability):014x}".rstrip("0") == text.rstrip("0")


@pytest.mark.parametrize("probability", [0, -1, 1.01, 2**-57])
def test_what_is_no_probability(probability: float) -> None:
    """Zero is not defined: never is no form of probability sampling."""
    with pytest.raises(ValueError, match="expected a probability"):
        threshold_of(probability)


@pytest.mark.parametrize(
    ("state", "threshold", "explicit"),
    [
        ("", UNKNOWN, UNKNOWN),
        ("vendor=1", UNKNOWN, UNKNOWN),
        ("ot=th:0", 0, UNKNOWN),
        ("ot=th:fd70a4", 0xFD70A400000000, UNKNOWN),
        ("ot=rv:0123456789abcd;th:8", 1 << 55, 0x0123456789ABCD),
        ("a=1, ot=p:8;th:c ,b=2", 0xC << 52, UNKNOWN),
        ("ot=th:FD", UNKNOWN, UNKNOWN),
        ("ot=th:123456789abcdef", UNKNOWN, UNKNOWN),
        ("ot=rv:123", UNKNOWN, UNKNOWN),
        ("not=th:8", UNKNOWN, UNKNOWN),
        ("ot=xth:8", UNKNOWN, UNKNOWN),
    ],
)
def test_reading(state: str, threshold: int, explicit: int) -> None:
    """Only what has the specified form counts."""
    found = read_trace_state(pa.array([state]))
    assert [int(column[0]) for column in found] == [threshold, explicit]


def test_randomness_is_explicit_or_the_last_seven_bytes() -> None:
    """W3C Trace Context level 2: the least significant 56 bits of the trace id."""
    low = np.frombuffer(bytes.fromhex("ff0123456789abcd"), np.uint64)
    assert int(randomness(low, np.array([UNKNOWN], np.uint64))[0]) == 0x0123456789ABCD
    assert int(randomness(low, np.array([5], np.uint64))[0]) == 5


@pytest.mark.parametrize(
    ("before", "threshold", "after"),
    [
        ("", 0, ""),
        ("", 1 << 55, "ot=th:8"),
        ("a=1", 1 << 55, "ot=th:8,a=1"),
        ("a=1", 0, "a=1"),
        ("ot=th:c", 1 << 55, "ot=th:c"),
        ("ot=th:4", 1 << 55, "ot=th:8"),
        ("a=1,ot=p:2;th:4;r:3,b=2", 1 << 55, "ot=th:8;p:2;r:3,a=1,b=2"),
        ("ot=rv:ffffffffffffff", 1 << 55, "ot=th:8;rv:ffffffffffffff"),
    ],
)
def test_thresholds_are_only_raised(before: str, threshold: int, after: str) -> None:
    """What an earlier sampler said holds, unless this one was stricter; other entries stay."""
    assert raised(before, threshold) == after


@pytest.mark.parametrize(
    ("before", "after"), [("ot=th:c;rv:00000000000001,a=1", "ot=rv:00000000000001,a=1"), ("ot=th:c", "")]
)
def test_a_threshold_that_randomness_contradicts_is_erased(before: str, after: str) -> None:
    """Such a span should not be here, so nobody knows how many it stands for."""
    assert raised(before, 1 << 55, low=0) == after


def test_adjusted_counts() -> None:
    """The inverse of the probability."""
    counts = adjusted_counts(np.array([0, threshold_of(0.25), UNKNOWN, NEVER], np.uint64))
    assert counts[:2].tolist() == [1, 4]
    assert np.isnan(counts[2:]).all()


def test_views_and_empty_columns() -> None:
    """A slice shows its own rows only."""
    states = pa.array(["ot=th:8", "", "ot=th:c"]).slice(1)
    assert [int(x) for x in read_trace_state(states)[0]] == [UNKNOWN, 0xC << 52]
    assert raise_thresholds(states.slice(0, 1), NO_ID, np.zeros(1, np.uint64)).to_pylist() == [""]
    assert [len(column) for column in read_trace_state(pa.array([], pa.string()))] == [0, 0]


MEMBERS = st.sampled_from(["a=1", "ot=th:8", "ot=p:1;th:4;x:y", "ot=rv:00000000000fff", "b=ot", "ot=", "ot=th:zz;q:1"])


@settings(max_examples=100, deadline=None)
@given(st.lists(MEMBERS, max_size=3, unique_by=lambda m: m.startswith("ot=")), st.integers(0, NEVER - 1))
def test_writing_keeps_all_else(members: list[str], threshold: int) -> None:
    """Whatever stands there, afterwards the threshold is the higher one and the rest is as it was."""
    before = ",".join(members)
    after = raised(before, threshold)
    was, now = (int(read_trace_state(pa.array([s]))[0][0]) for s in (before, after))
    r = int(randomness(np.array([(1 << 64) - 1], np.uint64), read_trace_state(pa.array([before]))[1])[0])
    if was != UNKNOWN and r < was:
        assert now == UNKNOWN
    elif was == UNKNOWN:
        assert now == (threshold or UNKNOWN)
    else:
        assert now == max(was, threshold)

    def others(state: str) -> list[str]:
        parts = sorted(m for m in state.split(",") if m and not m.startswith("ot="))
        own = "".join(m[3:] for m in state.split(",") if m.startswith("ot="))
        return parts + sorted(k for k in own.split(";") if k and not re.match("th:", k))

    assert others(after) == others(before)
