"""The replay flow: what an archive holds reaches the sink once, also after an interruption."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, cluster_main, run_main

from connectors.archive.delta_log import ArchiveError
from connectors.archive.sink import ArchiveSettings, ArchiveSink
from connectors.archive.source import ReplayProgress
from connectors.archive.table import ArchiveTable
from flows.replay import ReplaySettings, build
from telflow import Signal, TelemetryBatch
from tests.numbered_logs import archived, rows


def _archive(path: Path, files: int = 4) -> Path:
    table = ArchiveTable.open_or_create(path, Signal.LOGS, ())
    for n in range(files):
        table.append(rows(range(n * 10, n * 10 + 10), tenant=f"t{n % 2}"), "a", n * 10)
    return path


def _numbers(batches: list[TelemetryBatch]) -> list[int]:
    return [number for batch in batches for number in batch.records["flags"].to_pylist()]


def _run(flow: Dataflow, **options: Any) -> None:
    run_main(flow, **options)


def test_to_any_sink(tmp_path: Path) -> None:
    """A sink without partitions gets every batch; progress ends at the number of rows there are."""
    out: list[TelemetryBatch] = []
    seen: list[ReplayProgress] = []
    _run(build(ReplaySettings(path=_archive(tmp_path), batch_rows=4), TestingSink(out), on_progress=seen.append))
    assert sorted(_numbers(out)) == list(range(40))
    assert seen[-1] == ReplayProgress(rows=40, rows_read=40, rows_emitted=40)


def test_to_another_archive(tmp_path: Path) -> None:
    """One tenant's records into an archive of their own: a sink with partitions."""
    settings = ReplaySettings(path=_archive(tmp_path / "from"), tenant="t1")
    _run(build(settings, ArchiveSink(ArchiveSettings(path=tmp_path / "to"))))
    assert archived(tmp_path / "to") == dict.fromkeys([*range(10, 20), *range(30, 40)], 1)


class _FailingPartition(StatelessSinkPartition[TelemetryBatch]):
    def __init__(self, out: list[TelemetryBatch], room: int) -> None:
        self._out = out
        self._room = room

    def write_batch(self, items: list[TelemetryBatch]) -> None:
        if len(self._out) >= self._room:
            raise OSError("no room")
        self._out += items


class _FailingSink(DynamicSink[TelemetryBatch]):
    def __init__(self, out: list[TelemetryBatch], room: int) -> None:
        self._out = out
        self._room = room

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _FailingPartition:
        del step_id, worker_index, worker_count
        return _FailingPartition(self._out, self._room)


@pytest.mark.filterwarnings("ignore")  # Bytewax reports the failure on its way, too
def test_interrupted_replay_goes_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The sink fails in the middle; run again with recovery, the rest follows, and nothing twice."""
    store = tmp_path / "store"
    store.mkdir()
    init_db_dir(store, 1)
    recovery = RecoveryConfig(store)
    settings = ReplaySettings(path=_archive(tmp_path / "archive"), batch_rows=4)
    out: list[TelemetryBatch] = []
    with pytest.raises(Exception, match=r"no room|error"):
        _run(build(settings, _FailingSink(out, 5)), epoch_interval=timedelta(0), recovery_config=recovery)
    capfd.readouterr()
    assert len(_numbers(out)) < 40
    _run(build(settings, _FailingSink(out, 1000)), epoch_interval=timedelta(0), recovery_config=recovery)
    assert sorted(_numbers(out)) == list(range(40))


@pytest.mark.parametrize("workers", [1, 2])
def test_several_partitions(tmp_path: Path, workers: int) -> None:
    """Dealt to partitions, on one worker or two, all is read once."""
    out: list[TelemetryBatch] = []
    flow = build(ReplaySettings(path=_archive(tmp_path), partitions=4), TestingSink(out))
    cluster_main(flow, [], 0, worker_count_per_proc=workers)
    assert sorted(_numbers(out)) == list(range(40))


def test_no_archive(tmp_path: Path) -> None:
    """Said when the flow is built, before anything runs."""
    with pytest.raises(ArchiveError, match="expected a table"):
        build(ReplaySettings(path=tmp_path), TestingSink([]))
