"""`telflow deadletter`: letters are found, shown, sent once more and deleted, by people and by programs."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
import pytest

from connectors.otlp.null_server import NullOtlpServer
from connectors.otlp.protocol import ExportRequest, Refusal
from control.exit_codes import ExitCode
from telflow import Signal
from telflow.codec import decode, encode
from telflow.delivery.dead_letters import DeadLetters
from telflow.delivery.log import Entry
from tests.command import Command
from tests.delivery import logs

DAY_NS = 86_400_000_000_000
NOW_NS = time.time_ns()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Four letters: two refused ones, one that cannot be decoded, one that could not be encoded."""
    path = tmp_path / "deadletter.db"
    with DeadLetters(path, min_free_bytes=0) as letters:
        for number, tenant in enumerate(["acme", "globex"]):
            body = encode(logs(3 + number, first=number * 10))
            entry = Entry(Signal.LOGS, body, 3 + number, tenant, "protobuf", NOW_NS - number * DAY_NS)
            letters.add(entry, origin="gateway.export_a.write", reason="refused (HTTP 400)")
        entry = Entry(Signal.TRACES, b"\xff\xff", 0, "acme", "protobuf", NOW_NS - 40 * DAY_NS)
        letters.add(entry, origin="otlp", reason="undecodable")
        arrow = logs(2, tenant="acme").to_ipc_bytes()
        entry = Entry(Signal.LOGS, arrow, 2, "acme", "arrow", NOW_NS - 3 * DAY_NS)
        letters.add(entry, origin="gateway.export_b.write", reason="not encodable")
    return path


def ids(telflow: Command, store: Path, *options: str) -> list[str]:
    return [each["id"] for each in telflow("deadletter", "list", "-s", str(store), "-o", "json", *options).json]


def test_list_for_programs_and_people(store: Path, telflow: Command) -> None:
    """Oldest first, whole as JSON; filters combine; a person is told what is left out."""
    found = telflow("deadletter", "list", "--store", str(store), "--output", "json").json
    assert [(each["origin"], each["reason"], each["tenant"], each["records"]) for each in found] == [
        ("otlp", "undecodable", "acme", 0),
        ("gateway.export_b.write", "not encodable", "acme", 2),
        ("gateway.export_a.write", "refused (HTTP 400)", "globex", 4),
        ("gateway.export_a.write", "refused (HTTP 400)", "acme", 3),
    ]
    assert len(ids(telflow, store, "--reason", "refused", "--tenant", "acme")) == 1
    assert len(ids(telflow, store, "--signal", "traces")) == 1
    assert len(ids(telflow, store, "--origin", "gateway.export_a.write")) == 2
    done = telflow("deadletter", "list", "--store", str(store), "--limit", "2")
    assert len(done.out.splitlines()) == 3
    assert done.err == "2 more; --limit 4 shows all\n"
    wrong = telflow("deadletter", "list", "--store", str(store), "--signal", "spans")
    assert wrong.code == ExitCode.USAGE
    assert "--signal: expected traces, metrics, logs, got spans" in wrong.err


def test_a_store_that_was_never_made_is_empty(tmp_path: Path, telflow: Command) -> None:
    """No error: nothing was ever refused."""
    done = telflow("deadletter", "list", "--store", str(tmp_path / "none.db"))
    assert (done.code, done.out) == (0, "no dead letters\n")
    assert telflow("deadletter", "purge", "--store", str(tmp_path / "none.db"), "--yes").code == 0


def test_show_records_or_why_there_are_none(store: Path, telflow: Command, tmp_path: Path) -> None:
    """The first records as rows; of what cannot be decoded the reason and its first bytes; the payload as it came."""
    undecodable, arrow, refused, _ = ids(telflow, store)
    found = telflow("deadletter", "show", refused, "-s", str(store), "--rows", "2", "-o", "json").json
    assert [row["time_unix_nano"] for row in found["rows"]] == [11, 12]
    assert found["reason"] == "refused (HTTP 400)"
    raw = tmp_path / "raw.bin"
    found = telflow("deadletter", "show", undecodable, "-s", str(store), "--raw", str(raw), "-o", "json").json
    assert "at byte 0" in found["undecodable"]
    assert found["first_bytes"] == "ffff"
    assert raw.read_bytes() == b"\xff\xff"
    shown = telflow("deadletter", "show", arrow, "-s", str(store)).out
    assert "reason: not encodable" in shown
    assert shown.count("record: ") == 2
    assert "undecodable: " in telflow("deadletter", "show", undecodable, "-s", str(store)).out
    missing = telflow("deadletter", "show", "nobody-1", "-s", str(store))
    assert missing.code == ExitCode.USAGE
    assert "no dead letter nobody-1" in missing.err


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_replay_delivers_and_removes(store: Path, telflow: Command, protocol: str) -> None:
    """What is delivered is gone from the store; what is refused again stays, and the command says so with 5."""

    def answer(request: ExportRequest) -> bytes:
        if request.signal is Signal.TRACES:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, 400, "still wrong")
        return b""

    with NullOtlpServer(keep=True, answer=answer) as server:
        to = f"127.0.0.1:{server.grpc_port}" if protocol == "grpc" else f"http://127.0.0.1:{server.http_port}"
        kept = telflow("deadletter", "replay", "-s", str(store), "-t", to, "--keep", "--tenant", "globex")
        assert (kept.code, kept.out) == (0, "replayed 1 of 1 letters, 4 records\n")
        assert len(ids(telflow, store)) == 4
        done = telflow("deadletter", "replay", "--store", str(store), "--to", to, "--output", "json")
        assert done.code == ExitCode.LOSS
        assert "1 of 4 letters were not delivered" in done.err
        assert [each["delivered"] for each in done.json["letters"]] == [False, True, True, True]
        assert "still wrong" in done.json["letters"][0]["status"]
        (left,) = ids(telflow, store)
        arrived = [n for r in server.kept for n in decode(r.payload, r.signal).column("time_unix_nano").to_pylist()]
        assert sorted(arrived) == sorted([11, 12, 13, 14, 11, 12, 13, 14, 1, 2, 3, 1, 2])
        assert telflow("deadletter", "replay", left, "-s", str(store), "-t", to, "-o", "json").code == ExitCode.LOSS
        empty = telflow("deadletter", "replay", "-s", str(store), "-t", to, "--tenant", "nobody")
        assert (empty.code, empty.out) == (0, "replayed 0 of 0 letters, 0 records\n")


def test_replay_as_json_and_after_a_while(store: Path, telflow: Command) -> None:
    """Written anew for another encoding; a destination that is busy is asked again after the time it names."""
    busy = iter([True, False, False, False, False])

    def answer(_request: ExportRequest) -> bytes:
        if next(busy):
            raise Refusal(grpc.StatusCode.UNAVAILABLE, 503, "busy", retry_after_s=0)
        return b""

    with NullOtlpServer(keep=True, answer=answer) as server:
        to = f"http://127.0.0.1:{server.http_port}"
        done = telflow("deadletter", "replay", "-s", str(store), "-t", to, "--reason", "refused")
        assert done.code == 0
    assert len(server.kept) == 2


def test_nobody_listens(store: Path, telflow: Command) -> None:
    """Said before anything is tried."""
    with NullOtlpServer() as server:
        port = server.grpc_port
    done = telflow("deadletter", "replay", "-s", str(store), "-t", f"127.0.0.1:{port}")
    assert done.code == ExitCode.UNAVAILABLE
    assert len(ids(telflow, store)) == 4


def test_purge_deletes_what_is_meant_and_asks_before(store: Path, telflow: Command) -> None:
    """Where nobody can be asked it wants --yes; ids, filters and ages select."""
    refused = telflow("deadletter", "purge", "--store", str(store))
    assert refused.code == ExitCode.USAGE
    assert "expected --yes" in refused.err
    assert telflow("deadletter", "purge", "-s", str(store), "--older-than", "30d", "-y").out == "purged 1 letters\n"
    first, *others = ids(telflow, store)
    done = telflow("deadletter", "purge", first, "-s", str(store), "--yes", "--output", "json")
    assert done.json == {"purged": [first], "records": 2}
    assert ids(telflow, store) == others
    wrong = telflow("deadletter", "purge", "-s", str(store), "--older-than", "soon", "-y")
    assert wrong.code == ExitCode.USAGE
    assert "--older-than: expected a duration" in wrong.err


def test_a_gateway_that_runs_has_the_store(store: Path, telflow: Command) -> None:
    """Looking is allowed, deleting is not: an error that says who has it."""
    with DeadLetters(store, min_free_bytes=0):
        assert len(ids(telflow, store)) == 4
        done = telflow("deadletter", "purge", "--store", str(store), "--yes")
    assert done.code == ExitCode.FAILURE
    assert "another process" in done.err


def test_without_a_store_the_gateways_is_used(telflow: Command, tmp_path: Path) -> None:
    """The storage folder of telflow.yaml in the working directory."""
    (tmp_path / "telflow.yaml").write_text("storage: {dir: state}\n")
    with DeadLetters(tmp_path / "state" / "deadletter.db", min_free_bytes=0) as letters:
        letters.add(Entry(Signal.LOGS, b"", 1), origin="a", reason="b")
    assert len(telflow("deadletter", "list", "-o", "json").json) == 1


def test_the_letters_of_all_workers(telflow: Command, tmp_path: Path) -> None:
    """Listed together with whose they are, shown, sent and deleted wherever they lie; all stores must be free."""
    (tmp_path / "telflow.yaml").write_text("storage: {dir: state}\n")
    for number, folder in enumerate(["worker-1", ".", "worker-2"]):
        place = tmp_path / "state" / folder
        place.mkdir(parents=True, exist_ok=True)
        with DeadLetters(place / "deadletter.db", min_free_bytes=0) as letters:
            body = encode(logs(1 + number, first=10 * number))
            entry = Entry(Signal.LOGS, body, 1 + number, "acme", "protobuf", NOW_NS + number)
            letters.add(entry, origin="a", reason="b")
    found = telflow("deadletter", "list", "-o", "json").json
    assert [(each["worker"], each["records"]) for each in found] == [("1", 1), ("0", 2), ("2", 3)]
    shown = telflow("deadletter", "show", found[2]["id"], "-o", "json").json
    assert [row["time_unix_nano"] for row in shown["rows"]] == [21, 22, 23]
    with DeadLetters(tmp_path / "state" / "worker-2" / "deadletter.db", min_free_bytes=0):
        assert "another process" in telflow("deadletter", "purge", "--yes").err
    assert len(telflow("deadletter", "list", "-o", "json").json) == 3
    with NullOtlpServer(keep=True) as server:
        done = telflow("deadletter", "replay", found[0]["id"], found[2]["id"], "-t", f"127.0.0.1:{server.grpc_port}")
        assert (done.code, done.out) == (0, "replayed 2 of 2 letters, 4 records\n")
    assert [each["worker"] for each in telflow("deadletter", "list", "-o", "json").json] == ["0"]
    assert telflow("deadletter", "purge", "--yes").out == "purged 1 letters\n"
