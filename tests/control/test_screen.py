"""What commands write: results on standard output, the rest on standard error, JSON for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

from control.screen import Output, Screen, table
from telflow.accounting import LedgerRow, Outcome
from telflow.schema import Signal


@dataclass
class Thing:
    path: Path


def test_results_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """The same result; notes are for people only, and text is never markup."""
    for output in Output:
        screen = Screen(output)
        screen.result({"n": 1}, "one [bold]", table("a", "#b"))
        screen.note("by the way")
    wrote = capsys.readouterr()
    assert wrote.out.startswith("one [bold]\n")
    assert json.loads(wrote.out.splitlines()[-1]) == {"n": 1}
    assert wrote.err == "by the way\n"


def test_what_json_has_no_word_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Dataclasses, enumerations, paths, bytes, mappings; anything else is a bug and raises."""
    row = LedgerRow(Outcome.DROPPED, Signal.LOGS, "acme", "out", "refused", 3)
    data = {"row": row, "thing": Thing(Path("a")), "id": b"\xff", "map": MappingProxyType({"signal": Signal.LOGS})}
    Screen(Output.JSON).result(data)
    got = json.loads(capsys.readouterr().out)
    assert got["row"]["outcome"] == "dropped"
    assert got["thing"] == {"path": "a"}
    assert (got["id"], got["map"]) == ("ff", {"signal": "logs"})
    with pytest.raises(TypeError, match="cannot write object as JSON"):
        Screen(Output.JSON).result(object())
