"""sum_values: as adding up the official library's messages one by one."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from operators.sum import SumSettings, sum_values
from telflow.accounting import Ledger
from telflow.schema import MetricType, Signal
from tests.countable import NOW, Attributes, countable_requests, countables, metrics_from, told
from tests.strategies import thorough


def _number(value: Any) -> float:
    if isinstance(value, bool) or value is None:
        return 0
    try:
        return float(value)
    except ValueError:
        return 0


@thorough(20)
@given(
    requests=countable_requests(),
    section=st.sampled_from(["spans", "span_events", "data_points", "logs"]),
    by=st.sampled_from([[], [{"key": "env"}], [{"key": "code", "default_value": 1}, {"key": "env", "optional": True}]]),
)
def test_equal_to_adding_up_one_by_one(
    requests: Sequence[tuple[Signal, Message]], section: str, by: list[dict[str, Any]]
) -> None:
    """Integers, doubles and text that is a number; anything else adds nothing, but is there."""
    metric = {"source_attribute": "size", "attributes": by, "unit": "By", "description": "Sizes"}
    settings = SumSettings.model_validate({section: {"sizes": metric}, "emit_on_eof": True, "idle_timeout": None})
    expected: collections.defaultdict[tuple[Attributes, Attributes], float] = collections.defaultdict(float)
    for item in countables(requests, section):
        own = {a["key"]: a.get("default_value") if (v := item.value(a["key"])) is None else v for a in by}
        if any(own[a["key"]] is None and not a.get("optional") for a in by):
            continue
        place = told(item.resource), told({key: value for key, value in own.items() if value is not None})
        expected[place] += _number(item.value("size"))
    made = metrics_from(requests, lambda name, up: sum_values(name, up, settings, lambda: NOW, Ledger()))
    assert {(told(p["resource"]), told(p["attributes"])): p["value_double"] for p in made} == expected
    assert len(made) == len(expected)
    described = {(p["name"], p["type"], p["is_monotonic"], p["unit"], p["description"]) for p in made}
    assert described <= {("sizes", MetricType.SUM, True, "By", "Sizes")}


def test_without_a_metric_there_is_nothing_to_do() -> None:
    """The Collector's connector has no defaults either."""
    with pytest.raises(ValidationError, match="expected at least one metric"):
        SumSettings()
    with pytest.raises(ValidationError, match="source_attribute"):
        SumSettings.model_validate({"logs": {"n": {}}})
