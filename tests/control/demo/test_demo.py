"""`telflow demo`, as a newcomer runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def _demo(*options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "telflow", "demo", "--orders", "60", *options]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "NO_COLOR": "1", "COLUMNS": "120"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=180, check=False)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one run says to a program."""
    done = _demo("--output", "json", cwd=tmp_path_factory.mktemp("demo"))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_everything_sent_arrives_and_is_accounted_for(shown: dict[str, Any]) -> None:
    """Nothing is lost, dropped or in flight at the end."""
    assert shown["sent"]["orders"] == 60
    for row in shown["accounting"]:
        assert row["received"] + row["derived"] == row["delivered"], row
        assert row["in_flight"] == row["dropped"] == row["quarantined"] == 0
    traces = next(r for r in shown["accounting"] if r["signal"] == "traces")
    assert traces["received"] == shown["sent"]["spans"]


def test_red_counts_every_request(shown: dict[str, Any]) -> None:
    """Each of the three services served each order once; quantiles are in order."""
    assert {s["name"]: s["requests"] for s in shown["services"]} == dict.fromkeys(
        ("storefront", "checkout", "payment"), 60
    )
    assert all(0 < s["p50_ms"] <= s["p95_ms"] for s in shown["services"])


def test_personal_data_does_not_get_through(shown: dict[str, Any]) -> None:
    """Every sampled value has changed, and no known address or card number is left anywhere."""
    assert shown["personal_data_left"] == 0
    assert len(shown["samples"]) >= 3
    assert all(s["after"] not in {s["before"], "(not found)"} for s in shown["samples"])


def test_the_archive_is_queried_and_replayed(shown: dict[str, Any]) -> None:
    """SQL sees every span; the replay delivers as many records as were archived."""
    assert sum(row["spans"] for row in shown["query"]) == shown["sent"]["spans"]
    assert shown["archived"] == shown["replayed"]


def test_people_see_tables_and_the_archive_can_be_kept(tmp_path: Path) -> None:
    """The tables of the README's promise; --keep leaves a readable archive and refuses to write over one."""
    done = _demo("--keep", "kept", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for expected in ("RED, from span metrics", "Personal data and secrets", "Replay of the archive", "none found"):
        assert expected in done.stdout
    assert (tmp_path / "kept" / "traces" / "_delta_log").is_dir()
    again = _demo("--keep", "kept", cwd=tmp_path)
    assert again.returncode != 0
    assert "expected a new or empty folder" in again.stderr
