"""`telflow log`: what it shows of logs, and what it saves of damaged ones."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from control.exit_codes import ExitCode
from telflow.delivery.log import Durability, Entry, Log
from telflow.schema import Signal
from tests.command import Command
from tests.durable_flow import request


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A storage folder with one log of three entries, the first trimmed."""
    folder = tmp_path / "state"
    with Log(folder / "ingest.db", durability=Durability.OS, min_free_bytes=0) as log:
        for number in range(3):
            log.append("intake", Entry(Signal.LOGS, request(number).payload, 1, "acme", "protobuf", 10**18 + number))
        log.trim("intake", 1)
    return folder


def test_shows_what_each_partition_holds(telflow: Command, state: Path) -> None:
    """For people a table, for programs the same as JSON; the folder is that of the settings file when none is named."""
    (row,) = telflow("log", "inspect", str(state), "--output", "json").json
    assert (row["name"], row["entries"], row["first_position"], row["last_position"]) == ("intake", 2, 2, 3)
    assert row["oldest_unix_nano"] == 10**18 + 1
    (state.parent / "telflow.yaml").write_text("storage: {dir: state}\n")
    shown = telflow("log", "inspect").out
    assert "ingest.db  intake" in shown
    assert "2001-09-09 01:46:40" in shown


def test_shows_single_entries_also_of_a_log_in_use(telflow: Command, state: Path) -> None:
    """Positions, tenants and decoded payloads, while another process writes."""
    with Log(state / "ingest.db", durability=Durability.OS, min_free_bytes=0) as log:
        log.append("intake", Entry(Signal.LOGS, request(7).payload, 1, "globex"))
        log.append("intake", Entry(Signal.LOGS, b"\xff", 1))
        file = str(state / "ingest.db")
        entries = telflow("log", "inspect", file, "--partition", "intake", "--after", "2", "--output", "json").json
        shown = telflow("log", "inspect", file, "--partition", "intake", "--limit", "1").out
    assert [(e["position"], e["tenant"]) for e in entries] == [(3, "acme"), (4, "globex"), (5, None)]
    assert entries[1]["payload"]["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["body"] == {"stringValue": "n7"}
    assert "error" in entries[2]["payload"]
    assert len(shown.splitlines()) == 2


def test_an_unknown_partition_and_a_folder_without_logs_are_errors(telflow: Command, state: Path) -> None:
    """Bad input: exit code 2, what there is, and a hint."""
    done = telflow("log", "inspect", str(state), "--partition", "intak")
    assert done.code == ExitCode.USAGE
    assert "hint: did you mean intake?" in done.err
    done = telflow("log", "inspect", str(state.parent / "nowhere"))
    assert done.code == ExitCode.USAGE
    assert "where there is no log" in done.err
    done = telflow("log", "salvage", str(state / "nothing.db"))
    assert done.code != 0
    assert "there is no such file" in done.err


def test_saves_what_a_damaged_log_still_holds(telflow: Command, tmp_path: Path) -> None:
    """Pages are overwritten: after the salvage all other entries are where they were."""
    path = tmp_path / "state" / "ingest.db"
    payloads = [bytes([n]) * 4000 for n in range(60)]
    with Log(path, durability=Durability.OS, min_free_bytes=0) as log:
        for n, payload in enumerate(payloads):
            log.append("intake", Entry(Signal.LOGS, payload + random.Random(n).randbytes(6000), n))
        log.trim("intake", 5)
    page = 16 << 10
    with path.open("r+b") as file:
        for number in (10, 20):
            file.seek(number * page)
            file.write(bytes(page))
    done = telflow("log", "salvage", str(path), "--output", "json")
    assert done.code == 0
    (part,) = done.json["partitions"]
    assert Path(done.json["damaged"]).exists()
    assert part["entries"] + part["lost_entries"] == 55
    assert 0 < part["lost_entries"] < 15
    with Log(path, durability=Durability.OS, min_free_bytes=0) as log:
        held = log.read("intake", after=0, max_bytes=1 << 30)
        assert len(held) == part["entries"]
        assert sum(entry.records for entry in held) == part["records"]
        assert all(entry.payload[:4000] == payloads[entry.position - 1] for entry in held)
        assert log.append("intake", Entry(Signal.LOGS, b"next", 1)) == 61
