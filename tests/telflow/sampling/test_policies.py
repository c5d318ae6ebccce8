"""Policies as settings: what is refused, and what the leaves of combinations are."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from telflow.sampling.policies import Policy, leaves

POLICIES: TypeAdapter[tuple[Policy, ...]] = TypeAdapter(tuple[Policy, ...])


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        ({"type": "latency", "threshold": "2s", "upper_threshold": "1s"}, "upper_threshold: expected at least"),
        ({"type": "latency", "threshold": "-1s"}, "duration"),
        ({"type": "span_count", "min_spans": 3, "max_spans": 2}, "max_spans: expected at least 3"),
        ({"type": "numeric_attribute", "key": "a"}, "expected min_value, max_value or both"),
        ({"type": "numeric_attribute", "key": "a", "min_value": 2, "max_value": 1}, "max_value: expected"),
        ({"type": "string_attribute", "key": "", "values": ["x"]}, "at least 1 character"),
        ({"type": "status", "codes": []}, "at least 1"),
        ({"type": "status", "codes": ["FAILED"]}, "'UNSET', 'OK' or 'ERROR'"),
        ({"type": "probabilistic", "percentage": 1e-20}, r"2\*\*-56"),
        ({"type": "rate_limit", "spans_per_second": 0}, "greater than 0"),
        ({"type": "and", "policies": []}, "at least 1"),
        ({"type": "not", "policy": {"type": "rate_limit", "spans_per_second": 1}}, "depend on the trace alone"),
        ({"type": "not", "policy": {"type": "probabilistic", "percentage": 1}}, "depend on the trace alone"),
        (
            {
                "type": "composite",
                "max_spans_per_second": 1,
                "parts": [{"policy": {"type": "always"}, "share": 0.6}] * 2,
            },
            "shares of at most 1",
        ),
        ({"type": "sometimes"}, "does not match any of the expected tags"),
        ({"type": "always", "share": 1}, "Extra inputs"),
    ],
)
def test_what_is_refused(policy: dict[str, Any], text: str) -> None:
    """Each with what was expected."""
    with pytest.raises(ValidationError, match=text):
        POLICIES.validate_python([policy])


def test_leaves_of_everything() -> None:
    """At any depth and in order: what has to be known of a trace before it is decided."""
    policies = POLICIES.validate_python(
        [
            {"type": "or", "policies": [{"type": "status"}, {"type": "not", "policy": {"type": "always"}}]},
            {
                "type": "composite",
                "max_spans_per_second": 5,
                "parts": [
                    {"policy": {"type": "and", "policies": [{"type": "function", "name": "f"}]}, "share": 1},
                ],
            },
            {"type": "rate_limit", "spans_per_second": 1},
        ]
    )
    assert [leaf.type for leaf in leaves(policies)] == ["status", "always", "function", "rate_limit"]
