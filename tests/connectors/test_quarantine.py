"""The quarantine: owner-only, durable, bounded; what cannot be kept is counted, never passed on."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from connectors.quarantine import QuarantineSettings, QuarantineSink, read_quarantine
from telflow.accounting import Ledger, LedgerRow, Outcome
from telflow.batch import TelemetryBatch
from telflow.errors import BatchError, ConfigError
from telflow.schema import Signal
from tests.same import assert_same_batch
from tests.spans import EPOCH, Span, spans_batch


def spans(count: int = 3) -> TelemetryBatch:
    return spans_batch([Span(EPOCH + n, name=f"span {n}") for n in range(count)])


def write(path: Path, batches: list[TelemetryBatch], *, max_bytes: int = 1 << 20, state: int | None = None) -> Ledger:
    """Write the batches through one partition; the clock stands still."""
    ledger = Ledger()
    settings = QuarantineSettings(path=path, max_bytes=max_bytes)
    sink = QuarantineSink(settings, ledger=ledger, now_unix_nano=lambda: EPOCH)
    assert sink.list_parts() == ["quarantine"]
    part = sink.build_part("gateway.quarantine", "quarantine", state)
    part.write_batch(batches)
    part.snapshot()
    part.close()
    return ledger


def test_what_is_written_is_read_back_in_order(tmp_path: Path) -> None:
    """Whole batches, oldest first; empty ones leave no file, and nobody counts them twice."""
    first, second = spans(1), spans(2)
    ledger = write(tmp_path / "q", [first, TelemetryBatch.empty(Signal.LOGS), second])
    kept = list(read_quarantine(tmp_path / "q"))
    assert len(kept) == 2
    for got, expected in zip(kept, (first, second), strict=True):
        assert_same_batch(got, expected)
    assert ledger.rows() == ()


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    """The folder, also when it stood there open before, and each file."""
    folder = tmp_path / "q"
    folder.mkdir(mode=0o755)
    write(folder, [spans()])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_full_quarantine_drops_and_counts(tmp_path: Path) -> None:
    """Also after a restart, which counts what lies there; the sums of the ledger still agree."""
    big = spans_batch([Span(EPOCH, name="x" * 700_000)])
    write(tmp_path, [big])
    ledger = write(tmp_path, [big, spans(2)], state=1)
    expected = [(Outcome.DERIVED, 1), (Outcome.DROPPED, 1)]
    assert [(row.outcome, row.count) for row in ledger.rows()] == sorted(expected)
    assert {row.reason for row in ledger.rows()} == {"quarantine full"}
    assert [batch.num_rows for batch in read_quarantine(tmp_path)] == [1, 2]
    (balance,) = ledger.balance().values()
    assert balance.in_flight == 0


def test_a_folder_that_goes_away_drops_and_counts(tmp_path: Path) -> None:
    """The worker goes on: the data is lost to quarantine, not let through."""
    ledger = Ledger()
    sink = QuarantineSink(QuarantineSettings(path=tmp_path / "q"), ledger=ledger)
    part = sink.build_part("q", "quarantine", None)
    (tmp_path / "q").rmdir()
    part.write_batch([spans(2)])
    assert LedgerRow(Outcome.DROPPED, Signal.TRACES, "acme", "q", "quarantine not writable", 2) in ledger.rows()


def test_a_folder_that_cannot_be_made_is_told_at_the_start(tmp_path: Path) -> None:
    """Before any data comes in."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"quarantine path .*: expected a directory of telflow's own"):
        QuarantineSink(QuarantineSettings(path=tmp_path / "file" / "q"))


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    """Half a file never appears by itself; a disk may still damage one."""
    write(tmp_path, [spans()])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(BatchError):
        list(read_quarantine(tmp_path))
