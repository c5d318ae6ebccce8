"""Predicates about spans, a bit each: against the same questions asked span by span."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from telflow.errors import ConfigError
from telflow.sampling.policies import Policy
from telflow.sampling.predicates import Predicates
from tests.sampling import Row, rows_batch

EXAMPLES = int(os.environ.get("TELFLOW_HYPOTHESIS_EXAMPLES", "40"))
POLICIES: TypeAdapter[tuple[Policy, ...]] = TypeAdapter(tuple[Policy, ...])


def bits_of(policies: list[dict[str, Any]], rows: list[Row]) -> list[int]:
    found: list[int] = Predicates(POLICIES.validate_python(policies)).bits(rows_batch(rows)).tolist()
    return found


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"type": "string_attribute", "key": "k", "values": ["a", "7"]}, [0, 1]),
        ({"type": "string_attribute", "key": "k", "values": ["a*"]}, [0, 2]),
        (
            {"type": "string_attribute", "key": "service.name", "values": ["shop"], "source": "resource"},
            [0, 1, 2, 3, 4],
        ),
        ({"type": "string_attribute", "key": "service.name", "values": ["shop"], "source": "span"}, []),
        ({"type": "string_attribute", "key": "service.name", "values": ["shop"]}, [0, 1, 2, 3]),
        ({"type": "numeric_attribute", "key": "k", "min_value": 1, "max_value": 7}, [1, 3]),
        ({"type": "numeric_attribute", "key": "k", "max_value": 2.5}, [3]),
        ({"type": "boolean_attribute", "key": "b"}, [4]),
        ({"type": "boolean_attribute", "key": "b", "value": False}, [3]),
        ({"type": "boolean_attribute", "key": "none"}, []),
        ({"type": "status", "codes": ["UNSET"]}, [1, 2, 3, 4]),
        ({"type": "status", "codes": ["ERROR", "UNSET"]}, [0, 1, 2, 3, 4]),
        ({"type": "match", "condition": {"attributes": {"k": ["ab"]}}}, [2]),
    ],
)
def test_what_fits(policy: dict[str, Any], expected: list[int]) -> None:
    """An attribute of a span comes before that of its resource; a value of another kind does not fit."""
    rows = [
        Row(trace=1, span=0, error=True, attributes={"k": "a"}),
        Row(trace=1, span=1, attributes={"k": 7}),
        Row(trace=1, span=2, attributes={"k": "ab"}),
        Row(trace=1, span=3, attributes={"k": 2.5, "b": False}),
        Row(trace=1, span=4, attributes={"b": True, "service.name": "other"}),
    ]
    assert np.flatnonzero(bits_of([policy], rows)).tolist() == expected


VALUES = st.one_of(
    st.sampled_from(["a", "b", "7", ""]), st.integers(-3, 9), st.booleans(), st.sampled_from([2.5, -1.0])
)


def as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.none() | VALUES), min_size=1, max_size=12),
    st.sets(st.sampled_from(["a", "b", "7", "zz"]), min_size=1),
    st.integers(-3, 4),
    st.integers(0, 5),
    st.booleans(),
)
def test_same_as_span_by_span(
    spans: list[tuple[bool, Any]], values: set[str], low: int, width: int, wanted: bool
) -> None:
    """Values of all kinds, four predicates at once: each bit is what its predicate says of that span."""
    rows = [
        Row(trace=1, span=n, error=error, attributes={} if value is None else {"k": value})
        for n, (error, value) in enumerate(spans)
    ]
    policies: list[dict[str, Any]] = [
        {"type": "status"},
        {"type": "string_attribute", "key": "k", "values": sorted(values)},
        {"type": "numeric_attribute", "key": "k", "min_value": low, "max_value": low + width},
        {"type": "boolean_attribute", "key": "k", "value": wanted},
    ]
    expected = []
    for error, value in spans:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        truths = [
            error,
            value is not None and as_text(value) in values,
            number and low <= value <= low + width,
            isinstance(value, bool) and value == wanted,
        ]
        expected.append(sum(truth << n for n, truth in enumerate(truths)))
    assert bits_of(policies, rows) == expected


def test_equal_predicates_share_a_bit() -> None:
    """Wherever they stand; what does not look at single spans has none."""
    status = {"type": "status", "codes": ["OK", "ERROR"]}
    policies = POLICIES.validate_python(
        [
            {"type": "latency", "threshold": "1s"},
            {"type": "and", "policies": [{"type": "status", "codes": ["ERROR", "OK"]}, {"type": "always"}]},
            {"type": "match", "condition": {"names": ["a"]}},
            status,
        ]
    )
    found = Predicates(policies)
    assert len(found.names) == 2
    assert found.bit_of(policies[3]) == 1  # type: ignore[arg-type]
    assert found.bit_of(policies[2]) == 2  # type: ignore[arg-type]


def test_bits_of_other_policies_are_translated() -> None:
    """By what is asked, not by place; what nobody asked then is false, what nobody asks now is dropped."""
    old = Predicates(POLICIES.validate_python([{"type": "status", "codes": [c]} for c in ("OK", "ERROR", "UNSET")]))
    new = Predicates(POLICIES.validate_python([{"type": "status"}, {"type": "match", "condition": {"names": ["a"]}}]))
    bits = np.arange(8, dtype=np.uint64)
    assert new.translate(bits, old.names).tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    same = new.translate(bits, new.names)
    assert same.tolist() == bits.tolist()
    assert same is not bits


def test_too_many_predicates() -> None:
    """One bit of a word each: 64, and an error that says so."""
    policies = [{"type": "match", "condition": {"names": [str(n)]}} for n in range(65)]
    assert len(Predicates(POLICIES.validate_python(policies[:64])).names) == 64
    with pytest.raises(ConfigError, match="at most 64 different policies about spans, got 65"):
        Predicates(POLICIES.validate_python(policies))
