"""A queue's part of a log: what is kept comes back, what ended its way does not, also across a restart."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from telflow.codec import decode
from telflow.delivery.log import Durability, Entry, Log, LogFull
from telflow.delivery.parcel import Packer
from telflow.delivery.queue_store import QueueStore
from telflow.schema import Signal
from tests.delivery import logs


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


def test_what_is_kept_comes_back_without_its_body_and_with_it_when_asked(tmp_path: Path) -> None:
    """A restart costs the metadata only; bodies are loaded one by one."""
    packer = Packer("protobuf", max_bytes=1 << 20)
    with open_log(tmp_path) as log:
        store = QueueStore(log, "export/0")
        assert list(store.append([*packer.pack(logs(3, tenant="a")), *packer.pack(logs(4))])) == [1, 2]
        assert store.last_position == 2
        first, second = store.recover(None)
        assert (first.owner, first.tenants, second.owner, second.tenants) == ("a", {"a": 3}, "", {"": 4})
        (request,) = second.requests
        assert not request.body
        assert store.load(request)
        assert decode(request.body or b"", request.signal) == logs(4)
        store.remove([2])
        assert not store.load(request)
        assert len(store.recover(0)) == 0


def test_a_full_store_takes_no_more(tmp_path: Path) -> None:
    """Its own limit, whatever room the log has for others."""
    with open_log(tmp_path) as log:
        store = QueueStore(log, "export/0", max_bytes=1)
        store.append(Packer("protobuf", max_bytes=1 << 20).pack(logs(3)))
        with pytest.raises(LogFull, match="export/0: the queue holds"):
            store.append(Packer("protobuf", max_bytes=1 << 20).pack(logs(3)))


def test_a_removal_that_fails_is_said_and_costs_a_duplicate_at_most(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log was closed under the store: an error in the log, no exception in the sending thread."""
    log = open_log(tmp_path)
    store = QueueStore(log, "export/0")
    store.append(Packer("protobuf", max_bytes=1 << 20).pack(logs(3)))
    log.close()
    with caplog.at_level(logging.ERROR):
        store.remove([1])
    assert "delivered requests stay in the log" in caplog.text
