"""A day in windows gives the same results live and replayed: on 1, 2 and 4 workers, killed half-way and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir

from telflow.accounting import Ledger, Outcome
from tests import replayed_flow
from tests.cluster import Cluster

FLOW = Path(replayed_flow.__file__)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """The archive of the day, and what the live run found."""
    folder = tmp_path_factory.mktemp("lived")
    out = folder / "live"
    out.mkdir()
    ledger = Ledger()
    replayed_flow.live(folder / "archive", out, ledger)
    late = sum(row.count for row in ledger.rows() if row.outcome is Outcome.DROPPED and row.reason == "late")
    assert late > 60, "the day tests what is late, too"
    assert len({path.parent.name for path in (folder / "archive" / "traces").rglob("date=*/*.parquet")}) == 2
    return folder, replayed_flow.results(out)


def _same(out: Path, expected: dict[str, list[str]]) -> None:
    found = replayed_flow.results(out)
    assert found.keys() == expected.keys() == {"tumbling", "sliding", "session", "red"}
    for name, rows in expected.items():
        assert found[name] == rows, name


def _environment(lived: Path, out: Path, partitions: int) -> dict[str, str]:
    return {"FOLDER": str(lived / "archive"), "OUT": str(out), "PARTITIONS": str(partitions)}


def test_as_fast_as_possible(lived: tuple[Path, dict[str, list[str]]], tmp_path: Path) -> None:
    """From the first span to the last, each of four workers at its own pace."""
    folder, expected = lived
    with Cluster(FLOW, 4, _environment(folder, tmp_path, 4)) as cluster:
        cluster.wait()
    _same(tmp_path, expected)


@pytest.mark.parametrize(("workers", "then"), [(1, 2), (2, 1), (4, 2)])
def test_killed_half_way(lived: tuple[Path, dict[str, list[str]]], tmp_path: Path, workers: int, then: int) -> None:
    """All processes at once, and resumed from the last finished epoch, also on another number of workers."""
    folder, expected = lived
    half = sum(path.stat().st_size for path in replayed_flow.files(folder / "live")) // 2
    recovery = tmp_path / "recovery"
    recovery.mkdir()
    init_db_dir(recovery, 2)
    arguments = ["-r", str(recovery), "-s", "1", "-b", "0"]
    environment = _environment(folder, tmp_path, 4)
    slowly = {"RATE": str(replayed_flow.SPANS / 4 / workers)}  # for 4 s, which is epochs enough
    with Cluster(FLOW, workers, environment | slowly, arguments) as cluster:
        cluster.wait_until(lambda: sum(path.stat().st_size for path in replayed_flow.files(tmp_path)) > half)
        cluster.kill()
    assert not (tmp_path / replayed_flow.RESUMED).exists()
    with Cluster(FLOW, then, environment, arguments) as cluster:
        cluster.wait()
    assert (tmp_path / replayed_flow.RESUMED).exists()
    _same(tmp_path, expected)
