"""`telflow query` and `telflow replay` over a small archive."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from connectors.archive import ArchiveSettings, ArchiveSink, query
from connectors.generator import GeneratorSettings, generate_batches
from connectors.otlp import NullOtlpServer
from connectors.otlp.protocol import ExportRequest, Refusal
from control.exit_codes import ExitCode
from telflow.schema import Signal
from tests.command import Command
from tests.supervised import ROOT

RECORDS = 1200
START = 1_750_000_000_000_000_000


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1200 records of two tenants, all signals, one a millisecond from 2025-06-15T15:06:40Z on."""
    path = tmp_path_factory.mktemp("archive") / "archive"
    part = ArchiveSink(ArchiveSettings(path=path)).build_part("archive", "archive-000", None)
    settings = GeneratorSettings(total_records=RECORDS, batch_records=200, tenants=2, start_time_unix_nano=START)
    part.write_batch(list(generate_batches(settings)))
    part.close()
    return path


def test_a_table_for_people(archive: Path, telflow: Command) -> None:
    """Numbers to the right; rows that are left out are counted."""
    sql = "select service_name, count(*) as spans from traces group by 1 order by 1"
    done = telflow("query", sql, "--archive", str(archive), "--rows", "2")
    lines = done.out.splitlines()
    assert lines[0].split() == ["service_name", "spans"]
    assert len(lines) == 3
    assert done.err == "3 more rows; --rows 5 shows all\n"


def test_json_and_csv_for_programs(archive: Path, telflow: Command) -> None:
    """Whole; identifiers in hexadecimal, lists as JSON in CSV."""
    sql = "select trace_id, name, attributes from traces order by start_time_unix_nano limit 3"
    rows = telflow("query", sql, "-a", str(archive), "--output", "json").json
    assert len(rows) == 3
    assert len(rows[0]["trace_id"]) == 32
    assert rows[0]["attributes"][0]["key"]
    table = list(csv.DictReader(io.StringIO(telflow("query", sql, "-a", str(archive), "-o", "csv").out)))
    assert [row["trace_id"] for row in table] == [row["trace_id"] for row in rows]
    assert table[0]["attributes"].startswith('[{"key": ')


def test_wrong_sql_and_a_missing_archive_are_told(archive: Path, telflow: Command) -> None:
    """With what there is."""
    done = telflow("query", "select nme from traces", "-a", str(archive))
    assert done.code == ExitCode.FAILURE
    assert "nme" in done.err
    done = telflow("query", "select 1 from traces", "-o", "json")
    assert done.error["type"] == "ArchiveError"
    assert "telflow-data/archive" in done.error["message"]


def test_the_archive_of_telflow_yaml_is_the_default(archive: Path, telflow: Command, tmp_path: Path) -> None:
    """Nobody types its path twice."""
    (tmp_path / "telflow.yaml").write_text(f"archive: {{path: {archive}}}\n")
    assert telflow("query", "select count(*) as n from logs", "-o", "json").json == [{"n": 400}]


def test_a_replay_delivers_what_was_read(archive: Path, telflow: Command, tmp_path: Path) -> None:
    """Into another archive, and the counts agree."""
    done = telflow("replay", "-a", str(archive), "--to", f"archive:{tmp_path / 'copy'}", "--output", "json")
    assert done.code == 0
    assert (done.json["read"], done.json["delivered"], done.json["stopped"]) == (RECORDS, RECORDS, False)
    count = "select count(*) as n from metrics"
    assert query(tmp_path / "copy", count).item() == query(archive, count).item()


def test_a_replay_selects(archive: Path, telflow: Command) -> None:
    """By signal, tenant, service and time; over OTLP."""
    with NullOtlpServer(keep=True) as server:
        to = f"http://127.0.0.1:{server.http_port}"
        arguments = ["--signal", "traces", "--tenant", "tenant-1", "--service", "cart"]
        times = ["--start", "2025-06-15", "--end", "2025-06-15T15:06:40.100Z"]
        done = telflow("replay", "-a", str(archive), "--to", to, *arguments, *times)
    assert done.code == 0
    assert done.out.startswith("replayed ")
    assert {request.signal for request in server.kept} == {Signal.TRACES}


def test_the_console_shows_a_replay(archive: Path, telflow: Command) -> None:
    """Data on standard output."""
    done = telflow("replay", "-a", str(archive), "--to", "console", "--signal", "logs")
    assert "logs: 400 records" in done.out


def test_a_destination_that_refuses_is_a_loss(archive: Path, telflow: Command) -> None:
    """Exit code 5, and the table says why."""
    with NullOtlpServer(grpc=None) as server:  # there is no /nowhere/v1/logs
        to = f"http://127.0.0.1:{server.http_port}/nowhere"
        done = telflow("replay", "-a", str(archive), "--to", to, "--signal", "logs")
    assert done.code == ExitCode.LOSS
    assert "refused (HTTP 404)" in done.out
    assert "400 of 400 records were not delivered" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--start", "yesterday"], "--start"),
        (["--start", "2025-01-02", "--end", "2025-01-01"], "expected start before end"),
        (["--signal", "spans"], "signals[0]: expected one of traces, metrics, logs, got 'spans'"),
        (["--rate", "0"], "rate: expected greater than 0"),
    ],
)
def test_wrong_options_are_told(arguments: list[str], said: str, archive: Path, telflow: Command) -> None:
    """Before anything is read."""
    done = telflow("replay", "-a", str(archive), "--to", "console", *arguments)
    assert done.code == ExitCode.USAGE
    assert said in done.err


def test_a_replay_goes_on_where_it_was(archive: Path, telflow: Command, tmp_path: Path) -> None:
    """Run again with the same recovery folder, nothing is left to do; with other settings, it is refused."""
    again = [
        "replay",
        "-a",
        str(archive),
        "--to",
        f"archive:{tmp_path / 'copy'}",
        "--recovery-dir",
        str(tmp_path / "r"),
    ]
    assert telflow(*again, "--output", "json").json["delivered"] == RECORDS
    assert telflow(*again, "--output", "json").json["delivered"] == 0
    rows = sum(query(tmp_path / "copy", f"SELECT count(*) FROM {signal}").item() for signal in Signal)  # noqa: S608
    assert rows == RECORDS
    done = telflow(*again, "--deal", "file")
    assert done.code != 0
    assert "expected the settings of the interrupted replay" in done.err


def _in_two_processes(archive: Path, to: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "telflow", "replay", "-a", str(archive), "--workers", "2"]
    return subprocess.run(
        [*command, "--to", to, "--output", "json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_replay_in_two_processes(archive: Path, tmp_path: Path) -> None:
    """Each record arrives once, whoever brings it; the numbers are those of all workers."""
    done = _in_two_processes(archive, f"archive:{tmp_path / 'copy'}", tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["read"], said["delivered"], said["restarts"], said["losses"]) == (RECORDS, RECORDS, 0, [])
    for signal in Signal:
        copied, original = (
            query(folder, f"SELECT tenant, count(*) AS n FROM {signal} GROUP BY tenant ORDER BY tenant").rows()  # noqa: S608
            for folder in (tmp_path / "copy", archive)
        )
        assert copied == original


def test_what_a_worker_could_not_deliver_is_a_loss(archive: Path, tmp_path: Path) -> None:
    """As without workers: exit code 5, what was not replayed and why, and how much was."""

    def answer(request: ExportRequest) -> bytes:
        if request.signal is Signal.LOGS:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, 400, "no logs")
        return b""

    with NullOtlpServer(http=None, answer=answer) as server:
        done = _in_two_processes(archive, f"127.0.0.1:{server.grpc_port}", tmp_path)
    assert done.returncode == ExitCode.LOSS, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["read"], said["delivered"], said["dropped"]) == (RECORDS, 800, 400)
    assert {(row["signal"], row["reason"]) for row in said["losses"]} == {("logs", "refused (INVALID_ARGUMENT)")}
    assert "400 of 1,200 records were not delivered" in done.stderr


def test_workers_of_no_archive(tmp_path: Path) -> None:
    """Told once, with the exit code of a replay without workers; none is started."""
    done = _in_two_processes(tmp_path / "none", "127.0.0.1:1", tmp_path)
    assert done.returncode == ExitCode.FAILURE, done.stderr
    [line] = done.stderr.splitlines()
    assert json.loads(line)["error"]["message"].startswith("archive path ")
