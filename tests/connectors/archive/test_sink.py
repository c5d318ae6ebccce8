"""`ArchiveSink`: what it has returned from is durable, and every record is archived once, whatever kills the flow."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, run_main
from pydantic import ValidationError

from connectors.archive.delta_log import ArchiveError
from connectors.archive.promote import PromotedAttribute
from connectors.archive.sink import ArchiveSettings, ArchiveSink, writer_identity
from connectors.archive.table import ArchiveTable
from telflow import Signal, TelemetryBatch
from telflow.accounting import Ledger, Outcome
from telflow.errors import ConfigError, DeliveryError
from tests.killed_flow import ALL, run_and_kill
from tests.numbered_logs import archived, logs
from tests.oracle import REQUESTS, batch_from_message

ROOT = Path(__file__).parents[3]


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def _store(tmp_path: Path) -> Path:
    return _new_store(tmp_path / "recovery")


def _new_store(store: Path) -> Path:
    store.mkdir()
    init_db_dir(store, 1)
    return store


def _part(archive: Path, state: dict[str, Any] | None = None, **options: Any) -> Any:
    known = {key: options.pop(key) for key in ("ledger", "clock") if key in options}
    sink = ArchiveSink(ArchiveSettings(path=archive, **options), **known)
    return sink.build_part("flow.archive", sink.list_parts()[0], state)


def test_rows_are_durable_when_snapshot_returns(tmp_path: Path) -> None:
    """Buffered until then, counted as delivered only then, and closing flushes too."""
    ledger = Ledger()
    part = _part(tmp_path, ledger=ledger)
    part.write_batch([logs([1, 2], tenant="acme"), TelemetryBatch.empty(Signal.LOGS)])
    assert not archived(tmp_path)
    assert not ledger.rows()
    state = part.snapshot()
    assert state["offsets"] == {"traces": 0, "metrics": 0, "logs": 2}
    assert archived(tmp_path) == {1: 1, 2: 1}
    (row,) = ledger.rows()
    assert (row.outcome, row.tenant, row.component, row.count) == (Outcome.DELIVERED, "acme", "flow.archive", 2)
    part.write_batch([logs([3])])
    part.close()
    assert archived(tmp_path) == dict.fromkeys([1, 2, 3], 1)


def test_all_signals(tmp_path: Path) -> None:
    """Each goes to its table; all three tables are there from the start."""
    part = _part(tmp_path)
    request: Any = REQUESTS[Signal.TRACES]()
    request.resource_spans.add().scope_spans.add().spans.add(flags=5)
    part.write_batch([batch_from_message(request, Signal.TRACES), logs([6])])
    part.snapshot()
    assert archived(tmp_path, Signal.TRACES) == {5: 1}
    assert archived(tmp_path, Signal.LOGS) == {6: 1}
    assert not archived(tmp_path, Signal.METRICS)


@pytest.mark.parametrize("option", [{"flush_rows": 4}, {"flush_bytes": 300}])
def test_thresholds_write_within_an_epoch(tmp_path: Path, option: dict[str, Any]) -> None:
    """Rows or bytes bound what is held in memory."""
    part = _part(tmp_path, **option)
    part.write_batch([logs([1, 2])])
    part.write_batch([logs([3, 4])])
    assert archived(tmp_path) == dict.fromkeys([1, 2, 3, 4], 1)


def test_age_writes_within_an_epoch(tmp_path: Path) -> None:
    """The next batch after the interval takes the old ones along."""
    clock = _Clock()
    part = _part(tmp_path, clock=clock, flush_interval="5s")
    part.write_batch([logs([1])])
    clock.now_s = 4.9
    part.write_batch([logs([2])])
    assert not archived(tmp_path)
    clock.now_s = 5.1
    part.write_batch([logs([3])])
    assert archived(tmp_path) == dict.fromkeys([1, 2, 3], 1)
    clock.now_s = 6
    part.write_batch([logs([4])])
    assert len(archived(tmp_path)) == 3


def test_resume_takes_back_what_is_sent_again(tmp_path: Path) -> None:
    """In another order than before, too; and again after a second crash at the same epoch."""
    store = _store(tmp_path)
    archive = tmp_path / "archive"
    part = _part(archive, recovery_dir=store)
    part.write_batch([logs([1, 2])])
    state = part.snapshot()
    part.write_batch([logs([3, 4]), logs([5])])
    part.snapshot()  # this one is lost with the process
    for _ in range(2):
        part = _part(archive, state, recovery_dir=store)
        assert archived(archive) == {1: 1, 2: 1}
        part.write_batch([logs([5]), logs([4, 3])])
        part.snapshot()
        assert archived(archive) == dict.fromkeys([1, 2, 3, 4, 5], 1)


def test_crash_in_the_first_epoch(tmp_path: Path) -> None:
    """Without any state yet, the recovery store says whose rows they were."""
    store = _store(tmp_path)
    archive = tmp_path / "archive"
    for _ in range(3):
        part = _part(archive, recovery_dir=store)
        part.write_batch([logs([1, 2])])
        part.snapshot()
    assert archived(archive) == {1: 1, 2: 1}


def test_new_recovery_store_takes_back_nothing(tmp_path: Path) -> None:
    """Whoever deletes the recovery directory starts anew; the archive keeps all it has."""
    archive = tmp_path / "archive"
    for number in range(2):
        part = _part(archive, recovery_dir=_new_store(tmp_path / str(number)))
        part.write_batch([logs([1, 2])])
        part.snapshot()
    assert archived(archive) == {1: 2, 2: 2}


def test_without_recovery_nothing_is_taken_back(tmp_path: Path) -> None:
    """Sources that cannot send again lose nothing that reached the archive, even if Bytewax hands a state over."""
    part = _part(tmp_path)
    part.write_batch([logs([1])])
    state = part.snapshot()
    part.write_batch([logs([2])])
    part.snapshot()
    _part(tmp_path, state)
    assert archived(tmp_path) == {1: 1, 2: 1}


def test_lost_commits_stop_the_flow(tmp_path: Path) -> None:
    """A table restored to an older version than the flow's own state is an error, not silent loss."""
    store = _store(tmp_path)
    archive = tmp_path / "archive"
    part = _part(archive, recovery_dir=store)
    part.write_batch([logs([1])])
    state = part.snapshot()
    (archive / "logs" / "_delta_log" / f"{ArchiveTable.open(archive, Signal.LOGS).delta.version():020d}.json").unlink()
    with pytest.raises(ArchiveError, match="up to 1, got up to 0"):
        _part(archive, state, recovery_dir=store)


def test_foreign_state_is_refused(tmp_path: Path) -> None:
    """A state of another version or another sink names the step."""
    with pytest.raises(ConfigError, match=r"flow\.archive: expected recovery state of format 1, got 9"):
        _part(tmp_path / "archive", {"format": 9}, recovery_dir=_store(tmp_path))


def test_second_process_of_the_same_flow(tmp_path: Path) -> None:
    """A process that was believed dead cannot write between its successor's rows."""
    store = _store(tmp_path)
    archive = tmp_path / "archive"
    zombie = _part(archive, recovery_dir=store)
    state = zombie.snapshot()
    zombie.write_batch([logs([1])])
    zombie.snapshot()
    zombie.write_batch([logs([2])])
    _part(archive, state, recovery_dir=store)
    with pytest.raises(DeliveryError, match="another process writes under the same name"):
        zombie.snapshot()
    assert not archived(archive)


def test_failure_is_reported_before_the_flow_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The day's directory cannot be made: logged with the reason, raised, and closing does not try it again."""
    part = _part(tmp_path, flush_rows=2)
    (tmp_path / "logs" / "date=2025-06-15").touch()
    for attempt in (lambda: part.write_batch([logs([1, 2])]), part.snapshot):
        caplog.clear()
        with pytest.raises(DeliveryError, match="cannot be written"):
            attempt()
        assert r"flow.archive: the archive cannot be written" in caplog.text
    part.close()


def test_bad_settings_are_refused_when_the_flow_is_built(tmp_path: Path) -> None:
    """Unwritable path, clashing columns, no recovery store, damaged log: before anything runs."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"expected a directory telflow may write to, got: .*; hint: "):
        ArchiveSink(ArchiveSettings(path=tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"promote\[0\]"):
        ArchiveSink(ArchiveSettings(path=tmp_path, promote=(PromotedAttribute(attribute="date"),)))
    with pytest.raises(ConfigError, match="expected a Bytewax recovery store"):
        _part(tmp_path, recovery_dir=tmp_path / "nothing")
    with pytest.raises(ValidationError, match=r"flush_row\n.*Extra inputs"):
        ArchiveSettings.model_validate({"path": tmp_path, "flush_row": 1})
    (tmp_path / "logs" / "_delta_log").mkdir(parents=True)
    (tmp_path / "logs" / "_delta_log" / f"{0:020d}.json").touch()
    with pytest.raises(ArchiveError, match="an empty file"):
        ArchiveSink(ArchiveSettings(path=tmp_path))


def test_identity_lives_in_the_store(tmp_path: Path) -> None:
    """Stable while the store lives."""
    store = _store(tmp_path)
    assert writer_identity(store) == writer_identity(store)


def test_flow_resumes_in_process(tmp_path: Path) -> None:
    """Bytewax itself, stopped by an abort in the middle and run again on the same store."""
    store = _store(tmp_path)
    archive = tmp_path / "archive"
    batches: list[Any] = [logs(range(n, n + 3)) for n in range(0, 30, 3)]
    batches.insert(6, TestingSource.ABORT())

    def flow() -> Dataflow:
        flow = Dataflow("resume")
        source = op.input("source", flow, TestingSource(batches))
        sink = ArchiveSink(ArchiveSettings(path=archive, recovery_dir=store, partitions=2, flush_rows=5))
        op.output("archive", op.key_on("key", source, lambda batch: str(batch.records["flags"][0])), sink)
        return flow

    for _ in range(2):
        _run(flow(), store)
    assert archived(archive) == dict.fromkeys(range(30), 1)


def _run(flow: Dataflow, store: Path) -> None:
    recovery = RecoveryConfig(store)
    run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)


_KILLED_FLOW = """
    import sys
    from datetime import timedelta
    from pathlib import Path

    import bytewax.operators as op
    from bytewax.dataflow import Dataflow
    from bytewax.recovery import RecoveryConfig
    from bytewax.testing import run_main

    from connectors.archive import ArchiveSettings, ArchiveSink
    from tests.killed_flow import NumberedSource
    from tests.numbered_logs import logs

    archive, store = map(Path, sys.argv[1:])
    flow = Dataflow("killed")
    up = op.input("source", flow, NumberedSource(logs))
    sink = ArchiveSink(ArchiveSettings(path=archive, recovery_dir=store, partitions=2, flush_rows=70))
    op.output("archive", op.key_on("key", up, lambda b: str(b.records["flags"][0])), sink)
    print("ready", flush=True)
    run_main(flow, epoch_interval=timedelta(milliseconds=20), recovery_config=RecoveryConfig(store))
"""


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """SIGKILL again and again, two sources that replay in any order: at the end every record is there exactly once."""
    store = _store(tmp_path)
    archive = tmp_path / "archive"
    run_and_kill(tmp_path, _KILLED_FLOW, archive, store, after_s=(0.2, 1.2))
    assert archived(archive) == dict.fromkeys(ALL, 1)
