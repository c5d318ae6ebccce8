"""The dead-letter store: what is kept, found again, removed, and what happens when there is no room."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest

from telflow.delivery.dead_letters import DeadLetterReader, DeadLetters
from telflow.delivery.log import Entry, LogError
from telflow.schema import Signal


def entry(payload: bytes = b"x", *, records: int = 1, arrival: int = 0) -> Entry:
    return Entry(Signal.LOGS, payload, records, "acme", "protobuf", arrival)


def test_letters_are_read_while_they_are_written(tmp_path: Path) -> None:
    """Oldest first whatever their origin; their names stay the same when others are removed."""
    path = tmp_path / "deadletter.db"
    with DeadLetters(path, min_free_bytes=0) as store:
        assert store.add(entry(b"2", arrival=2), origin="export_a", reason="refused (HTTP 400)")
        assert store.add(entry(b"1", arrival=1), origin="otlp", reason="undecodable")
        assert store.add(entry(b"3", arrival=3), origin="export_a", reason="refused (HTTP 400)")
        with DeadLetterReader(path) as reader:
            letters = reader.letters()
            assert [payload.payload for _, payload in reader.read(letters)] == [b"1", b"2", b"3"]
            store.remove([letters[0], letters[1]])
            assert reader.letters() == [letters[2]]
            assert [letter.id for letter, _ in reader.read(letters)] == [letters[2].id]
        assert len({letter.id for letter in letters}) == 3
    assert (letters[0].origin, letters[0].reason, letters[0].tenant) == ("otlp", "undecodable", "acme")


def test_no_room_is_said_once_and_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A full store keeps what it has; the caller goes on."""
    noise = random.Random(1).randbytes(6000)
    with caplog.at_level(logging.ERROR), DeadLetters(tmp_path / "d.db", max_bytes=10_000, min_free_bytes=0) as store:
        kept = [store.add(entry(noise), origin="export", reason="refused") for _ in range(4)]
        assert kept == [True, False, False, False]
        assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
            "dead letters are not kept any more"
        ]
        assert store.add(entry(b"small"), origin="export", reason="refused")


def test_a_missing_store_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Nothing was ever kept there."""
    with pytest.raises(LogError, match=r"nothing\.db"):
        DeadLetterReader(tmp_path / "nothing.db")
