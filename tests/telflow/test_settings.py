"""Settings: strict, frozen, durations as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from telflow.settings import FROM_FILE, Duration, Settings, Switchable

DURATION: TypeAdapter[timedelta] = TypeAdapter(Duration)


class Example(Settings):
    wait: Duration = timedelta(milliseconds=200)
    """How long."""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("200ms", 0.2), ("5s", 5), ("1m30s", 90), ("1.5h", 5400), ("0", 0), ("2d", 172800), ("7 s", 7), ("3us", 3e-6)],
)
def test_a_duration_reads_as_written(text: str, seconds: float) -> None:
    """Every unit, sums of units, fractions and blanks."""
    assert DURATION.validate_python(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5 parsecs", "-5s", "5s5"])
def test_text_that_is_no_duration_is_refused(text: str) -> None:
    """Also a bare number: its unit would be a guess."""
    with pytest.raises(ValidationError, match="expected a duration such as"):
        DURATION.validate_python(text)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=1000)))
def test_a_duration_written_to_json_reads_back_equal(value: timedelta) -> None:
    """Whatever its size."""
    assert DURATION.validate_json(DURATION.dump_json(value)) == value


def test_settings_are_frozen_and_refuse_unknown_keys() -> None:
    """Neither a typing error nor a later change goes unnoticed."""
    with pytest.raises(ValidationError, match="extra_forbidden"):
        Example.model_validate({"wiat": "5s"})
    with pytest.raises(ValidationError, match="frozen"):
        Example().wait = timedelta(1)


class Switched(Settings):
    part: Switchable[Example] = Example()
    other: Switchable[Example] = None


def test_a_part_is_off_only_when_it_is_said_to_be() -> None:
    """In a file nothing after the key means the defaults, so that deleting lines removes no protection."""
    assert Switched.model_validate({"part": False}).part is None
    assert Switched.model_validate({"part": None}, context=FROM_FILE).part == Example()
    assert Switched(part=None).part is None
    assert Switched.model_validate({"other": True}).other == Example()
    assert Switched.model_validate({"part": {"wait": "1s"}}).part == Example(wait=timedelta(seconds=1))
    assert Switched().other is None
