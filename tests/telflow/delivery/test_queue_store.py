"""A queue's part of a log: what is kept comes back, what ended its way does not, also across a restart."""

from __future__ import annotations

from pathlib import Path

from telflow.delivery.log import Durability, Entry, Log
from telflow.schema import Signal


def open_log(folder: Path) -> Log:
    return Log(folder / "queues.db", durability=Durability.OS, min_free_bytes=0)


def test_single_entries_can_be_removed_from_a_log(tmp_path: Path) -> None:
    """Of ten entries three are removed: they are gone now and after a restart, the others keep their positions."""
    with open_log(tmp_path) as log:
        log.append_many("q", [Entry(Signal.LOGS, bytes([n]), n, tenant="acme") for n in range(1, 11)])
        held_bytes = log.partition_bytes("q")
        log.remove("q", [2, 7, 3, 3, 99])
        log.remove("nobody's", [1])
        assert [entry.position for entry in log.index("q")] == [1, 4, 5, 6, 8, 9, 10]
        assert 0 < log.partition_bytes("q") < held_bytes
        assert log.append("q", Entry(Signal.LOGS, b"new", 1)) == 11
    with open_log(tmp_path) as log:
        assert [e.payload[0] for e in log.read("q", after=0)[:-1]] == [1, 4, 5, 6, 8, 9, 10]
        assert [(e.position, e.records, e.tenant, e.encoding) for e in log.index("q")][-2:] == [
            (10, 10, "acme", "protobuf"),
            (11, 1, None, "protobuf"),
        ]
        log.remove("q", range(1, 1000))
        assert (log.index("q"), log.partition_bytes("q"), log.stored_bytes) == ([], 0, 0)
        assert log.index("nobody's") == []
        assert log.partition_bytes("nobody's") == 0
