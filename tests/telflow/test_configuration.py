"""Configuration files: every mistake is reported, at once, with its place and what to do."""

from __future__ import annotations

import enum
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from telflow.configuration import ConfigurationError, Problem, dotted, from_options, load, read
from telflow.errors import ConfigError
from telflow.settings import Duration, Settings


class Mode(enum.StrEnum):
    FAST = "fast"
    SAFE = "safe"


class Server(Settings):
    endpoint: str
    """host:port."""
    max_bytes: int = Field(default=100, ge=1, le=1000)
    mode: Mode = Mode.FAST


class ByName(Settings):
    kind: Literal["name"]
    name: str


class ByPort(Settings):
    kind: Literal["port"]
    port: int


class Example(Settings):
    server: Server | None = None
    servers: Mapping[str, Server] = {}
    steps: tuple[Annotated[ByName | ByPort, Field(discriminator="kind")], ...] = ()
    wait: Duration | None = None
    password: str | None = None
    level: Literal["low", "high"] = "low"
    either: int | bool | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.level == "high" and self.either == 3:
            raise ValueError("either: expected 1 or 2 where level is high, got 3")
        if self.level == "high" and self.wait is None:
            raise ValueError("expected wait where level is high, got none; add `wait: 5s`")
        return self


def problems(text: str, environ: Mapping[str, str] | None = None) -> list[Problem]:
    with pytest.raises(ConfigurationError) as caught:
        read(text, Example, environ=environ or {})
    return caught.value.problems


def test_a_correct_file_becomes_settings(tmp_path: Path) -> None:
    """Also with a byte order mark, and an empty one means the defaults."""
    path = tmp_path / "telflow.yaml"
    path.write_bytes(b"\xef\xbb\xbfserver:\n  endpoint: localhost:1\n  mode: safe\n")
    assert load(path, Example) == Example(server=Server(endpoint="localhost:1", mode=Mode.SAFE))
    assert read("", Example) == Example()
    assert read("# nothing\n", Example) == Example()


def test_all_mistakes_are_reported_at_once_and_in_order() -> None:
    """An unknown key, a bad type, a value out of range, a wrong choice, a duplicate and an unset variable."""
    text = """\
server:
  endpiont: localhost:4317
  max_bytes: 5000
  mode: fsat
servers:
  a: {endpoint: x, max_bytes: many}
  a: {endpoint: y}
password: ${env:SECRET}
wait: 5 parsecs
"""
    found = problems(text)
    assert [(p.line, p.column, p.key) for p in found] == [
        (2, 3, "server.endpiont"),
        (3, 14, "server.max_bytes"),
        (4, 9, "server.mode"),
        (6, 31, "servers.a.max_bytes"),
        (7, 3, "servers.a"),
        (8, 11, "password"),
        (9, 7, "wait"),
    ]
    assert [p.hint for p in found] == [
        "did you mean endpoint?",
        "",
        "did you mean fast?",
        "",
        "",
        "set SECRET, or write ${env:SECRET:-default}",
        "",
    ]
    assert found[1].expected == "less than or equal to 1000"
    assert found[1].got == "5000"
    assert found[6].expected == "a duration such as 200ms, 5s or 1m30s"


def test_a_problem_reads_like_a_compiler_message() -> None:
    """file:line:column, the line, a caret under the place, expected, got, hint."""
    (problem,) = problems("server:\n  endpoint: x\n  maxBytes: 5\n")
    assert str(problem) == (
        "telflow.yaml:3:3: server.maxBytes is not a known key\n"
        "    3 |   maxBytes: 5\n"
        "      |   ^^^^^^^^\n"
        "  expected: one of endpoint, max_bytes, mode\n"
        "  got:      maxBytes\n"
        "  hint:     did you mean max_bytes?"
    )
    assert problem.to_dict()["line"] == 3


def test_the_whole_error_counts_its_problems() -> None:
    """The last line is the summary."""
    with pytest.raises(ConfigurationError) as caught:
        read("x: 1\ny: 2", Example, environ={})
    assert str(caught.value).endswith("\n2 problems in telflow.yaml")


def test_a_missing_key_is_reported_at_what_should_hold_it() -> None:
    """With what it takes; when a misspelt key explains it, only that is reported."""
    (problem,) = problems("server:\n  mode: fast\n")
    assert (problem.line, problem.column, problem.key) == (1, 1, "server.endpoint")
    assert problem.expected == "endpoint: text"
    assert problem.got == "nothing"


def test_members_of_a_union_are_told_apart_by_their_kind() -> None:
    """The keys named are those of the members; an unknown kind names the kinds."""
    found = problems("steps:\n  - {kind: name, nam: x}\n  - {kind: prot}\n  - {kind: port, port: x}")
    assert [(p.line, p.key, p.hint) for p in found] == [
        (2, "steps[0].nam", "did you mean name?"),
        (3, "steps[1].kind", "did you mean port?"),
        (4, "steps[2].port", ""),
    ]
    assert found[1].expected == "one of name, port"


def test_a_plain_union_says_all_it_accepts() -> None:
    """One problem, not one per member."""
    (problem,) = problems("either: x")
    assert problem.expected.startswith("a valid integer")
    assert ", or a valid boolean" in problem.expected


def test_a_rule_across_keys_speaks_for_itself() -> None:
    """`expected …, got …; hint` raised by a validator is taken apart."""
    (problem,) = problems("level: high\neither: 3")
    assert (problem.line, problem.column, problem.key) == (2, 9, "either")
    assert (problem.expected, problem.got) == ("1 or 2 where level is high", "3")
    (problem,) = problems("level: high")
    assert (problem.expected, problem.got) == ("wait where level is high", "none")
    assert problem.hint == "add `wait: 5s`"


@pytest.mark.parametrize(
    ("text", "expected", "got"),
    [
        ("- a", "a mapping", "a list"),
        ("just words", "a mapping", "text of 10 characters"),
        ("5", "a mapping", "an integer"),
        ("1.5", "a mapping", "a number"),
        ("true", "a mapping", "true or false"),
        ("server: 5", "a mapping", "5"),
        ("server: [a]", "a mapping", "a list"),
        ("password: {a: 1}", "text", "a mapping"),
        ("level: ", "one of low, high", "nothing"),
        ("level: LOW", "one of low, high", "'LOW'"),
        ("password: true", "text", "true"),
    ],
)
def test_the_wrong_kind_of_value(text: str, expected: str, got: str) -> None:
    """Said in the words of someone who writes YAML."""
    (problem,) = problems(text)
    assert (problem.expected, problem.got) == (expected, got)


def test_a_variable_is_text_where_text_is_wanted() -> None:
    """A password of digits, as in the Collector."""
    settings = read("password: ${env:P}\nserver: {endpoint: 'x', max_bytes: '${env:P}'}", Example, environ={"P": "12"})
    assert str(settings.password) == "12"
    assert settings.server is not None
    assert settings.server.max_bytes == 12


def test_a_variable_that_is_wrong_elsewhere_is_still_reported() -> None:
    """The change to text must not hide the other problem, nor show what the variable says."""
    found = problems("password: ${env:P}\nwait: ${env:S}", {"P": "12", "S": "hunter2"})
    assert [(p.key, p.got) for p in found] == [("wait", "text of 7 characters from an environment variable")]
    assert "hunter2" not in str(found[0])


def test_a_long_value_is_cut() -> None:
    """A message stays readable."""
    (problem,) = problems(f"wait: {'x' * 500}\npassword: y")
    assert len(problem.got) < 600
    (problem,) = problems(f"level: {'x' * 500}")
    assert problem.got.endswith("…")


@pytest.mark.parametrize("make", ["missing", "directory", "bytes"])
def test_a_file_that_cannot_be_read(make: str, tmp_path: Path) -> None:
    """Missing (with the nearest name beside it), a directory, or not UTF-8."""
    path = tmp_path / "telflw.yaml"
    (tmp_path / "telflow.yaml").write_text("")
    if make == "directory":
        path.mkdir()
    elif make == "bytes":
        path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigurationError) as caught:
        load(path, Example)
    (problem,) = caught.value.problems
    if make == "missing":
        assert problem.hint == f"did you mean {tmp_path / 'telflow.yaml'}?"
    if make == "bytes":
        assert (problem.line, problem.column, problem.got) == (2, 4, "byte 0xff")
    assert str(path) in str(problem)


def test_a_file_in_a_directory_that_is_missing(tmp_path: Path) -> None:
    """No hint, no crash."""
    with pytest.raises(ConfigurationError, match="no such file"):
        load(tmp_path / "no" / "telflow.yaml", Example)


def test_a_tab_keeps_the_caret_in_place() -> None:
    """The line before the caret repeats the tabs of the line above."""
    problem = problems('{"a\tb": 1, lvl: 2}')[1]
    assert str(problem).splitlines()[2].endswith("|    \t       ^^^")


@given(st.text(alphabet=string.printable + "é☃\x00${}", max_size=80))
def test_any_text_is_settings_or_problems_with_a_place(text: str) -> None:
    """Nothing else is ever raised, and every place lies in the text."""
    try:
        read(text, Example, environ={"A": "1"})
        found = []
    except ConfigurationError as error:
        found = error.problems
    lines = len(text.splitlines()) + 1
    assert all(1 <= p.line <= lines and p.column >= 1 and p.expected and p.got for p in found)
    assert all(f"{p.line}:{p.column}" in str(p) for p in found)


def test_dotted_paths() -> None:
    """Keys with dots between, list indices in brackets."""
    assert dotted(("a", 0, "b", "c")) == "a[0].b.c"
    assert dotted(()) == ""


def test_options_of_a_command_are_named_as_on_the_command_line() -> None:
    """All that are wrong, by the names the user typed; what was not given is left to the defaults."""
    with pytest.raises(ConfigError) as caught:
        from_options(Server, {"endpoint": "x", "max_bytes": 0, "mode": "fsat"}, {"max_bytes": "--max"})
    assert str(caught.value).splitlines() == [
        "--max: expected greater than or equal to 1, got 0",
        "mode: expected one of fast, safe, got 'fsat'; did you mean fast?",
    ]
    with pytest.raises(ConfigError, match="endpoint: expected endpoint: text, got nothing"):
        from_options(Server, {"mode": None})
    assert from_options(Server, {"endpoint": "x", "max_bytes": None}) == Server(endpoint="x")


def test_options_in_lists_and_mappings_keep_their_place() -> None:
    """Down to the item."""
    with pytest.raises(ConfigError, match=r"steps\[1\].port: expected a valid integer.*, got 'x'"):
        from_options(Example, {"steps": ({"kind": "name", "name": "a"}, {"kind": "port", "port": "x"})})
    with pytest.raises(ConfigError, match=r"^expected wait where level is high, got none"):
        from_options(Example, {"level": "high"})
