"""`telflow validate`: all mistakes of all files, for people and programs."""

from __future__ import annotations

import json
from pathlib import Path

from tests.command import Command

BAD = """\
receivers:
  otlp:
    grpc: {endpiont: "127.0.0.1:4317"}
redcat: {}
span_metrics: {window: 10 parsecs}
"""


def test_a_correct_file_is_valid(telflow: Command, tmp_path: Path) -> None:
    """telflow.yaml when none is named."""
    (tmp_path / "telflow.yaml").write_text("archive: {path: data}\n")
    done = telflow("validate")
    assert (done.code, done.out) == (0, "telflow.yaml: valid\n")
    assert not (tmp_path / "data").exists()


def test_every_mistake_is_shown_with_its_place(telflow: Command, tmp_path: Path) -> None:
    """file:line:column, the line with a caret, expected, got, the nearest known key; exit code 2."""
    (tmp_path / "bad.yaml").write_text(BAD)
    done = telflow("validate", "bad.yaml")
    assert done.code == 2
    assert "bad.yaml:3:12: receivers.otlp.grpc.endpiont is not a known key\n" in done.out
    assert '    3 |     grpc: {endpiont: "127.0.0.1:4317"}\n      |            ^^^^^^^^\n' in done.out
    assert "  hint:     did you mean endpoint?\n" in done.out
    assert "bad.yaml:4:1: redcat is not a known key\n" in done.out
    assert "  hint:     did you mean redact?\n" in done.out
    assert "bad.yaml:5:24: span_metrics.window is not valid\n" in done.out
    assert done.out.endswith("3 problems in bad.yaml\n")


def test_programs_get_a_document_per_file(telflow: Command, tmp_path: Path) -> None:
    """Valid or not, with the problems as data; one bad file decides the exit code."""
    (tmp_path / "bad.yaml").write_text(BAD)
    (tmp_path / "good.yaml").write_text("")
    done = telflow("validate", "good.yaml", "bad.yaml", "--output", "json")
    good, bad = (json.loads(line) for line in done.out.splitlines())
    assert done.code == 2
    assert (good["valid"], good["problems"]) == (True, [])
    assert not bad["valid"]
    assert [(p["line"], p["column"], p["key"]) for p in bad["problems"]] == [
        (3, 12, "receivers.otlp.grpc.endpiont"),
        (4, 1, "redcat"),
        (5, 24, "span_metrics.window"),
    ]


def test_what_only_setting_up_finds_is_found_too(telflow: Command, tmp_path: Path) -> None:
    """A pattern that does not compile."""
    (tmp_path / "telflow.yaml").write_text("redact: {patterns: [{name: mine, pattern: '('}]}\n")
    done = telflow("validate")
    assert done.code == 2
    assert done.out.startswith("telflow.yaml: ")
