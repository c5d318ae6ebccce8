"""What ready-made aggregations share: options become the aggregation of each metric, under a name that stays."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from telflow.aggregation import Count, Item, MetricAttribute, MetricSelection, ReadySettings
from telflow.schema import Signal


def test_a_plan_has_all_options() -> None:
    """Windows and limits of the settings, conditions and attributes of the metric."""
    options = {
        "window": "1m",
        "lateness": "2s",
        "temporality": "cumulative",
        "max_series": 7,
        "shards": 2,
        "namespace": "edge",
        "resource_attributes": ["host"],
        "idle_timeout": None,
        "emit_on_eof": True,
    }
    chosen = MetricSelection.model_validate(
        {
            "conditions": [{"names": ["a"]}],
            "attributes": [{"key": "env", "default_value": 1}, {"key": "b", "optional": True}],
        }
    )
    plan = ReadySettings.model_validate(options).plan(Item.SPAN_EVENTS, "my.count", Count(), chosen)
    made = plan.settings
    assert made.length == timedelta(minutes=1)
    assert {name: made.model_dump()[name] for name in ("max_series", "shards", "namespace", "emit_on_eof")} == {
        "max_series": 7,
        "shards": 2,
        "namespace": "edge",
        "emit_on_eof": True,
    }
    assert (made.signals, made.conditions) == (frozenset({Signal.LOGS}), chosen.conditions)
    assert [(f.name, f.source, f.type, f.default, f.required) for f in made.by] == [
        ("env", "attribute", "any", 1, True),
        ("b", "attribute", "any", None, False),
    ]
    assert (plan.name, plan.step) == ("my.count", "span_events_my:count")


@pytest.mark.parametrize("source", ["attribute", "column", "any"])
def test_where_an_attribute_comes_from(source: Any) -> None:
    """An attribute, unless something else is asked for: a span may have an attribute `name`."""
    field = MetricAttribute(key="name", source=source).field()
    assert (field.column_level is None) == (source == "attribute")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": "0s"}, "window: expected at least 1ms"),
        ({"series_expiry": "1s"}, "series_expiry: expected at least one window"),
        ({"shards": 8, "max_series": 4}, "shards: expected at most max_series"),
        ({"lateness": -1}, "lateness: expected at least 0"),
    ],
)
def test_options_that_no_aggregation_can_have_are_refused(options: dict[str, Any], message: str) -> None:
    """At once, in the words of the aggregation."""
    with pytest.raises(ValidationError, match=message):
        ReadySettings.model_validate(options)
