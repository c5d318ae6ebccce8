"""`ArchiveSource`: reads back what was archived, the wanted part of it, and goes on where it was interrupted."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from connectors.archive.delta_log import ArchiveError
from connectors.archive.source import ArchiveReadSettings, ArchiveSource, ReplayProgress
from connectors.archive.table import ArchiveTable
from telflow import Signal, TelemetryBatch
from telflow.accounting import Ledger, Outcome
from telflow.errors import ConfigError
from tests.numbered_logs import NOON, rows

_DAY = 86_400_000_000_000
_SECOND = 1_000_000_000


def _write(archive: Path, *tables: Any, source: str = "a") -> ArchiveTable:
    table = ArchiveTable.open_or_create(archive, Signal.LOGS, ())
    for more in tables:
        table.append(more, source, table.committed(source))
    return table


def _moment(offset_nano: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=(NOON + offset_nano) // 1000)


def _drain(part: Any) -> list[TelemetryBatch]:
    found: list[TelemetryBatch] = []
    while True:
        try:
            found += part.next_batch()
        except StopIteration:
            return found


def _read(archive: Path, **options: Any) -> list[TelemetryBatch]:
    source = ArchiveSource(ArchiveReadSettings(path=archive, **options), ledger=Ledger())
    return [b for name in source.list_parts() for b in _drain(source.build_part("flow.in", name, None))]


def _numbers(batches: list[TelemetryBatch]) -> list[int]:
    return [number for batch in batches for number in batch.records["flags"].to_pylist()]


def test_everything_comes_back_in_order(tmp_path: Path) -> None:
    """That of arrival, whatever times records have; in batches of the size asked for, each record once."""
    days = pa.concat_tables([rows([n], step=-_DAY if n % 2 else _DAY // 4) for n in range(5, 12)])
    _write(tmp_path, rows(range(5)), days, rows(range(12, 14), step=-_DAY))
    batches = _read(tmp_path, batch_rows=3)
    assert max(batch.num_rows for batch in batches) == 3
    assert _numbers(batches) == list(range(14))
    assert _numbers(_read(tmp_path, start=_moment(0))) == [0, 1, 2, 3, 4, 6, 8, 10]


def test_a_commit_over_days_of_an_older_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files do not say which rows they hold: they are read day by day."""
    monkeypatch.setattr("connectors.archive.table.row_numbers_text", lambda _: b"?")
    _write(tmp_path, pa.concat_tables([rows([0], step=_DAY), rows([1], step=_DAY), rows([2], start=NOON - _DAY)]))
    assert _numbers(_read(tmp_path)) == [2, 0, 1]


@pytest.mark.parametrize("partitions", [2, 5])
def test_each_tenant_in_its_order(tmp_path: Path, partitions: int) -> None:
    """Dealt by tenant, a tenant's records come from one partition, as they were archived; each tenant from some."""
    owners = [None, "a", "b", "c", "d", "e"]
    tables = [pa.concat_tables([rows([n], tenant=owners[n % 6]) for n in range(m, m + 12)]) for m in (0, 12, 24)]
    _write(tmp_path, *tables)
    source = ArchiveSource(ArchiveReadSettings(path=tmp_path, partitions=partitions, batch_rows=5), ledger=Ledger())
    found = [_numbers(_drain(source.build_part("in", name, None))) for name in source.list_parts()]
    assert sum(1 for part in found if part) > 1
    for tenant in range(6):
        (of_tenant,) = (mine for part in found if (mine := [n for n in part if n % 6 == tenant]))
        assert of_tenant == list(range(tenant, 36, 6))


def test_only_the_table_decides(tmp_path: Path) -> None:
    """Files that no commit names, or that one removed, are not read."""
    table = _write(tmp_path, rows([1]), rows([2]))
    table.truncate("a", 1)
    pq.write_table(rows([3]).drop_columns(["date"]), tmp_path / "logs" / "date=2025-06-15" / "stray.parquet")
    assert _numbers(_read(tmp_path)) == [1]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, range(12)),
        ({"start": _moment(2 * _SECOND)}, range(2, 12)),
        ({"end": _moment(2 * _SECOND)}, range(2)),
        ({"start": _moment(1 * _SECOND), "end": _moment(9 * _SECOND)}, range(1, 9)),
        ({"start": _moment(100 * _SECOND)}, []),
        ({"tenant": "acme"}, range(4, 8)),
        ({"tenant": ""}, [*range(4), *range(8, 12)]),
        ({"tenant": "nobody"}, []),
        ({"service": "pay"}, range(8, 12)),
        ({"service": "cart", "tenant": "acme", "start": _moment(6 * _SECOND)}, range(6, 8)),
    ],
)
def test_filters(tmp_path: Path, options: dict[str, Any], wanted: Any) -> None:
    """Time range (half open), tenant, service, and all of them together, over files that hold some, all or none."""
    _write(
        tmp_path,
        rows(range(4), step=_SECOND),
        rows(range(4, 8), step=_SECOND, tenant="acme"),
        rows(range(8, 12), step=_SECOND, service="pay"),
    )
    assert _numbers(_read(tmp_path, **options)) == list(wanted)


def test_times_beyond_int64(tmp_path: Path) -> None:
    """They compare as the unsigned numbers they are, though stored as negative ones."""
    _write(tmp_path, rows([0], start=2**64 - 1), rows([1], start=0, step=0), rows([2]))
    assert Counter(_numbers(_read(tmp_path, start=_moment(-_SECOND)))) == {0: 1, 2: 1}
    assert Counter(_numbers(_read(tmp_path, end=_moment(_SECOND)))) == {1: 1, 2: 1}


def test_files_out_of_the_range_are_not_opened(tmp_path: Path) -> None:
    """The table's own statistics leave them out: damage in them is not even noticed."""
    _write(tmp_path, rows([0]), rows([1], step=_DAY))
    (file,) = (tmp_path / "logs" / "date=2025-06-16").iterdir()
    file.write_bytes(b"")
    assert _numbers(_read(tmp_path, end=_moment(_DAY // 2))) == [0]


@pytest.mark.parametrize(("partitions", "deal"), [(1, "tenant"), (3, "tenant"), (3, "file")])
@pytest.mark.parametrize("after", [0, 1, 4, 9])
def test_resumes_where_it_was(tmp_path: Path, partitions: int, deal: str, after: int) -> None:
    """Snapshot after any batch, table grown meanwhile: the rest, and only that, follows."""
    owned = pa.concat_tables([rows([n], step=1000, tenant=f"t{n % 4}") for n in range(9, 20)])
    _write(tmp_path, rows(range(7), step=1000), rows(range(7, 9), step=_DAY), owned)
    options: dict[str, Any] = {"batch_rows": 2, "partitions": partitions, "deal": deal, "start": _moment(2000)}
    settings = ArchiveReadSettings(path=tmp_path, **options)
    seen: list[int] = []
    first = ArchiveSource(settings, ledger=Ledger())
    states = {}
    for name in first.list_parts():
        part = first.build_part("flow.in", name, None)
        for _ in range(after):
            try:
                seen += _numbers(part.next_batch())
            except StopIteration:
                break
        states[name] = part.snapshot()
    _write(tmp_path, rows(range(100, 110)))
    second = ArchiveSource(settings, ledger=Ledger())
    for name, state in states.items():
        seen += _numbers(_drain(second.build_part("flow.in", name, state)))
    assert Counter(seen) == dict.fromkeys(range(2, 20), 1)


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    """A position in a file the new settings leave out; a state of another version."""
    _write(tmp_path, rows([1]), rows([2], step=_DAY))
    state = ArchiveSource(ArchiveReadSettings(path=tmp_path)).build_part("in", "logs-000", None).snapshot()
    other = ArchiveSource(ArchiveReadSettings(path=tmp_path, start=_moment(_DAY)))
    with pytest.raises(ConfigError, match="expected the settings of the interrupted replay"):
        other.build_part("in", "logs-000", state)
    dealt = ArchiveSource(ArchiveReadSettings(path=tmp_path, partitions=2))
    with pytest.raises(ConfigError, match="dealt by tenant 1"):
        dealt.build_part("in", "logs-000", state)
    with pytest.raises(ConfigError, match="expected recovery state of format 2"):
        other.build_part("in", "logs-000", {})


def test_rate(tmp_path: Path) -> None:
    """Rows a second, over all partitions together, in batches of a tenth of a second."""
    _write(tmp_path, rows(range(100)))
    now_s = [50.0]
    source = ArchiveSource(
        ArchiveReadSettings(path=tmp_path, rate=100, partitions=2, deal="file"), ledger=Ledger(), clock=lambda: now_s[0]
    )
    parts = [source.build_part("in", name, None) for name in source.list_parts()]
    assert all(part.next_awake() is None for part in parts)
    (part,) = (p for p in parts if p._units)
    (batch,) = part.next_batch()
    assert batch.num_rows == 10
    for other in parts:
        awake = other.next_awake()
        assert awake is not None
        assert awake - datetime.now(UTC) <= timedelta(seconds=0.1)
    now_s[0] += 0.1
    assert part.next_awake() is None


def test_progress_and_counts(tmp_path: Path) -> None:
    """What there is to read, what was read, what of it was wanted; emitted records count as derived."""
    _write(tmp_path, rows(range(10)), rows(range(10, 14), service="pay"))
    seen: list[ReplayProgress] = []
    ledger = Ledger()
    settings = ArchiveReadSettings(path=tmp_path, service="pay", batch_rows=3)
    part = ArchiveSource(settings, on_progress=seen.append, ledger=ledger).build_part("in", "logs-000", None)
    _drain(part)
    assert seen == [ReplayProgress(14, 10, 0), ReplayProgress(14, 14, 3), ReplayProgress(14, 14, 4)]
    (row,) = ledger.rows()
    assert (row.outcome, row.component, row.count) == (Outcome.DERIVED, "in", 4)
    state = part.snapshot()
    with pytest.raises(StopIteration):
        ArchiveSource(settings, ledger=ledger).build_part("in", "logs-000", state).next_batch()


def _flip(file: Path, column: str) -> None:
    """One bit of the column's first page."""
    metadata = pq.ParquetFile(file).metadata.row_group(0)
    (chunk,) = (c for c in map(metadata.column, range(metadata.num_columns)) if c.path_in_schema == column)
    content = bytearray(file.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size - 3] ^= 1
    file.write_bytes(content)


def test_flipped_bit_is_found(tmp_path: Path) -> None:
    """Page checksums: the file and row group are named; or left out and counted, if so asked."""
    _write(tmp_path, rows([1, 2, 3]), rows([4]))
    (file,) = (f for f in (tmp_path / "logs").rglob("*.parquet") if "-0000000000000000000-" in f.name)
    _flip(file, "flags")
    with pytest.raises(ArchiveError, match=f"{file.name}', row group 0: expected 3 records, got: .*hint: "):
        _read(tmp_path)
    ledger = Ledger()
    settings = ArchiveReadSettings(path=tmp_path, on_damage="skip")
    assert _numbers(_drain(ArchiveSource(settings, ledger=ledger).build_part("in", "logs-000", None))) == [4]
    balance = ledger.balance()["", Signal.LOGS]
    assert (balance.derived, balance.dropped, balance.in_flight) == (4, 3, 1)


@pytest.mark.parametrize("content", [None, b"", b"PAR1 and no more"])
def test_missing_or_truncated_file(tmp_path: Path, content: bytes | None) -> None:
    """The whole file is one damaged place."""
    _write(tmp_path, rows([1, 2, 3]), rows([4]))
    (file,) = (f for f in (tmp_path / "logs").rglob("*.parquet") if "-0000000000000000000-" in f.name)
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(ArchiveError, match=file.name):
        _read(tmp_path)
    assert _numbers(_read(tmp_path, on_damage="skip")) == [4]


def test_no_archive(tmp_path: Path) -> None:
    """Wrong path, or a signal that was never archived: said with what there is."""
    with pytest.raises(ArchiveError, match="expected a table traces, got no table"):
        ArchiveSource(ArchiveReadSettings(path=tmp_path))
    _write(tmp_path, rows([1]))
    with pytest.raises(ArchiveError, match="expected a table metrics, got logs"):
        ArchiveSource(ArchiveReadSettings(path=tmp_path, signals=(Signal.METRICS,)))


@pytest.mark.parametrize(
    "options",
    [
        {"start": datetime(2025, 1, 1)},  # noqa: DTZ001  (that is what is refused)
        {"start": _moment(1000), "end": _moment(0)},
        {"rate": 0},
        {"batch_rows": 0},
        {"signals": ["spans"]},
        {"tenants": "acme"},
    ],
)
def test_bad_settings(tmp_path: Path, options: dict[str, Any]) -> None:
    """Times without zone, empty range, no rate, unknown signal, misspelt key."""
    with pytest.raises(ValidationError):
        ArchiveReadSettings(path=tmp_path, **options)


def test_batches_share_their_resources(tmp_path: Path) -> None:
    """Equal resources of the many batches that came together in one file are one row again."""
    table = _write(tmp_path)
    table.append(pa.concat_tables([rows([n], tenant="acme" if n % 2 else None) for n in range(10)]), "a", 0)
    (batch,) = _read(tmp_path)
    assert batch.num_rows == 10
    assert batch.resources["tenant"].to_pylist() == [None, "acme"]
