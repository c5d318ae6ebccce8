"""Settings models in words."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import AwareDatetime, Field, SecretStr

from telflow.describe import describe_type, known_keys, nested_models, options
from telflow.settings import Duration, Settings, Switchable


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(Settings):
    colour: Colour = Colour.RED
    """Which."""


class Outer(Settings):
    rows: int = Field(ge=1, le=10)
    """How many."""
    wait: Duration = timedelta(milliseconds=200)
    """How long."""
    inner: Inner | None = Inner()
    parts: tuple[Inner, ...] = ()
    named: Mapping[str, Inner] = {}
    source: str = Field(default="", alias="from")
    flag: bool = False
    note: str | None = None
    part: Switchable[Inner] = None
    colours: frozenset[Colour] = frozenset(Colour)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (str, "text"),
        (SecretStr, "text (secret)"),
        (Duration, "duration"),
        (Path | None, "path, or null"),
        (list[int], "list of integer"),
        (dict[str, float], "mapping of names to number"),
        (Literal["a", "b"], "one of a, b"),
        (Colour, "one of red, blue"),
        (str | int, "text or integer"),
        (Inner, "mapping"),
        (Any, "anything"),
        (bytes, "text"),
        (complex, "complex"),
        (AwareDatetime | None, "time with its zone, or null"),
        (Annotated[timedelta, Ge(timedelta(seconds=90)), Le(timedelta(hours=1))], "duration, at least 90s, at most 1h"),
        (list[Annotated[int, Gt(0), Lt(9)]], "list of integer, more than 0, less than 9"),
        (Annotated[str, MinLen(1), MaxLen(5)], "text, at least 1 long, at most 5 long"),
    ],
)
def test_a_type_in_words(annotation: Any, words: str) -> None:
    """As a person who writes YAML would say it."""
    assert describe_type(annotation) == words


def test_limits_are_part_of_the_words() -> None:
    """Both bounds of a number."""
    rows = options(Outer)[0]
    assert rows.takes == "integer, at least 1, at most 10"
    assert rows.default is None
    assert rows.text == "How many."
    assert options(Outer)[-2].takes == "mapping, or false"


def test_defaults_are_written_as_in_a_file() -> None:
    """YAML, not Python."""
    defaults = {o.key: o.default for o in options(Outer)}
    assert defaults == {
        "rows": None,
        "wait": "200ms",
        "inner": "{colour: red}",
        "parts": "[]",
        "named": "{}",
        "from": '""',
        "flag": "false",
        "note": "null",
        "part": "false",
        "colours": "[blue, red]",
    }


def test_models_below_a_key_are_found_in_unions_lists_and_mappings() -> None:
    """They are what the reference goes on with."""
    below = {o.key: o.models for o in options(Outer) if o.models}
    assert below == {"inner": (Inner,), "parts": (Inner,), "named": (Inner,), "part": (Inner,)}
    assert list(nested_models(dict[str, list[Inner] | None])) == [Inner]
    assert known_keys(Outer)[5] == "from"
    assert list(nested_models(Literal["a"])) == []
