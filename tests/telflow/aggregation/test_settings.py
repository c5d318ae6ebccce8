"""Options of aggregations: every form of a window, what state depends on, what is read."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from telflow.aggregation import AggregateSettings, SessionWindow, SlidingWindow, TumblingWindow
from telflow.aggregation.settings import nanos
from telflow.schema import Signal
from tests.spans import EPOCH, Span, spans_batch


def _settings(**options: Any) -> AggregateSettings:
    return AggregateSettings.model_validate({"measures": {"n": {"kind": "count"}}, "window": "10s", **options})


@pytest.mark.parametrize(
    ("window", "expected", "slide"),
    [
        ("1m", TumblingWindow(length=timedelta(minutes=1)), 60),
        (timedelta(minutes=1), TumblingWindow(length=timedelta(minutes=1)), 60),
        ({"kind": "tumbling", "length": "60s"}, TumblingWindow(length=timedelta(minutes=1)), 60),
        (
            {"kind": "sliding", "length": "60s", "slide": "20s"},
            SlidingWindow(length=timedelta(minutes=1), slide=timedelta(seconds=20)),
            20,
        ),
        ({"kind": "session", "gap": "60s"}, SessionWindow(gap=timedelta(minutes=1)), 60),
    ],
)
def test_every_form_of_a_window(window: Any, expected: Any, slide: int) -> None:
    """A duration alone is a tumbling one."""
    settings = _settings(window=window)
    assert settings.window == expected
    shape = settings.window_shape()
    assert (shape.length_nano, shape.slide_nano) == (nanos(timedelta(minutes=1)), slide * 10**9)


def test_corrections_keep_windows_for_their_time() -> None:
    """Only if they are asked for."""
    assert _settings().window_shape().retain_nano == 0
    assert _settings(late="correct", correct_for="25s").window_shape().retain_nano == 30 * 10**9


@pytest.mark.parametrize(
    ("change", "shapes"),
    [
        ({"by": ["name"]}, True),
        ({"measures": {"m": {"kind": "count"}}}, True),
        ({"window": "20s"}, True),
        ({"temporality": "cumulative"}, True),
        ({"signals": ["logs"]}, True),
        ({"conditions": [{"names": ["a"]}]}, True),
        ({"resource_attributes": ["*"]}, True),
        ({"late": "correct"}, True),
        ({"lateness": "1s"}, False),
        ({"max_series": 5}, False),
        ({"series_expiry": "1h"}, False),
        ({"namespace": "x"}, False),
        ({"emit_on_eof": True}, False),
    ],
)
def test_what_open_windows_depend_on(change: dict[str, Any], shapes: bool) -> None:
    """A restart with such a change closes them first; others apply at once."""
    assert (_settings().shape() != _settings(**change).shape()) == shapes


def test_the_shape_is_the_same_in_every_process() -> None:
    """Sets have another order in each; a restart must not take that for a change."""
    options = {"signals": ["traces", "logs"], "conditions": [{"names": ["a"], "signals": ["logs", "metrics"]}]}
    code = (
        "import json, sys\n"
        "from telflow.aggregation import AggregateSettings\n"
        f"options = {options | {'window': '10s', 'measures': {'n': {'kind': 'count'}}}}\n"
        "before = AggregateSettings.model_validate(options)\n"
        "print(json.dumps(before.model_dump(mode='json')))\n"
    )
    for seed in ("1", "2", "3"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        )
        assert AggregateSettings.model_validate_json(run.stdout).shape() == _settings(**options).shape()


def test_what_is_read_of_a_record() -> None:
    """Keys, values and times; nothing else is touched."""
    settings = _settings(by=["name", "http.route"], measures={"t": {"kind": "sum", "of": "duration_s"}})
    assert settings.reads(Signal.TRACES) == [
        "attributes",
        "end_time_unix_nano",
        "name",
        "resource",
        "scope",
        "start_time_unix_nano",
    ]
    assert settings.reads(Signal.LOGS) == [
        "attributes",
        "observed_time_unix_nano",
        "resource",
        "scope",
        "time_unix_nano",
    ]
    assert _settings(by=["name"], resource_attributes=["*"]).key_types() == [pa.string(), pa.string(), pa.binary()]


def test_which_records_are_chosen() -> None:
    """Those that fit one of the conditions; None when that is all of them."""
    batch = spans_batch([Span(EPOCH, name=name, status=status) for name, status in (("a", 2), ("b", 1), ("c", 0))])
    either = _settings(conditions=[{"names": ["b"]}, {"status": ["error"]}]).chosen(batch)
    assert either is not None
    assert either.tolist() == [0, 1]
    assert _settings(conditions=[{"names": ["*"]}]).chosen(batch) is None
    assert _settings().chosen(batch) is None
    none = _settings(conditions=[{"severity_at_least": 9}]).chosen(batch)
    assert none is not None
    assert none.tolist() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": ["name", "name"]}, "different names"),
        ({"by": ["by_kind", "kind"]}, "different names"),
        ({"measures": {"overflow": {"kind": "count"}}}, "different names"),
        ({"window": {"kind": "hopping", "length": "1s"}}, "does not match any of the expected tags"),
        ({"shards": 300}, "less than or equal to 256"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    """More of them: tests/operators/test_aggregate.py."""
    with pytest.raises(ValidationError, match=message):
        _settings(**options)
