"""The archive behind a log: files as large as they should be, and every record once, whatever kills the flow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, run_main

from connectors.archive.delta_log import ArchiveError
from connectors.archive.sink import ArchiveSettings, ArchiveSink
from connectors.archive.table import ArchiveTable
from telflow import Signal, TelemetryBatch
from telflow.accounting import Ledger
from telflow.delivery.committed import CommittedStates
from telflow.delivery.log import Durability, Log, LogError, LogFull
from telflow.errors import ConfigError, DeliveryError
from tests.delivery import outcomes, wait_for
from tests.killed_flow import ALL, run_and_kill
from tests.numbered_logs import archived, logs

ROOT = Path(__file__).parents[3]
NEVER = "1h"


class Commits:
    """The engine's part: which state is committed."""

    state: Any = None

    def get(self, step_id: str, key: str) -> Any:
        assert (step_id, key) == ("flow.archive", "archive-000")
        return self.state


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with open_log(tmp_path) as opened:
        yield opened


def open_log(folder: Path, **options: Any) -> Log:
    return Log(folder / "queues.db", durability=Durability.OS, min_free_bytes=0, **options)


class Run:
    """One life of a flow with one sink partition."""

    def __init__(self, archive: Path, log: Log, commits: Commits, **options: Any) -> None:
        self.ledger = Ledger()
        settings = ArchiveSettings.model_validate({"path": archive, "flush_interval": NEVER, **options})
        self.sink = ArchiveSink(settings, ledger=self.ledger, log=log, committed=commits)
        self.part: Any = self.sink.build_part("flow.archive", "archive-000", commits.state)

    def files(self) -> int:
        return sum(len(ArchiveTable.open(self.sink._settings.path, signal).files()) for signal in Signal)


def test_nothing_is_committed_before_its_epoch_is(tmp_path: Path, log: Log) -> None:
    """Snapshots alone make no file; one file holds all committed epochs, and what came later waits."""
    commits = Commits()
    run = Run(tmp_path / "archive", log, commits)
    for number in range(0, 10, 2):
        run.part.write_batch([logs([number, number + 1], tenant="acme"), TelemetryBatch.empty(Signal.LOGS)])
        state = run.part.snapshot()
        if number == 6:
            commits.state = state
    run.sink.finish()
    assert archived(tmp_path / "archive") == dict.fromkeys(range(8), 1)
    assert run.files() == 1
    assert outcomes(run.ledger) == {("delivered", "acme", ""): 8}
    commits.state = state
    run.sink.finish()
    run.sink.finish()
    assert archived(tmp_path / "archive") == dict.fromkeys(range(10), 1)
    run.part.close()
    assert log.index("flow.archive/archive-000") == []


def test_the_committer_works_by_itself(tmp_path: Path, log: Log) -> None:
    """Every `flush_interval`, and sooner when `flush_rows` have come together."""
    commits = Commits()
    run = Run(tmp_path / "archive", log, commits, flush_interval="50ms")
    run.part.write_batch([logs(range(5))])
    commits.state = run.part.snapshot()
    wait_for(lambda: len(archived(tmp_path / "archive")) == 5)
    run.part.close()
    quick = Run(tmp_path / "archive", log, commits, flush_rows=5)
    quick.part.write_batch([logs(range(5, 10))])
    commits.state = quick.part.snapshot()
    wait_for(lambda: len(archived(tmp_path / "archive")) == 10)
    quick.part.close()


def test_a_resume_forgets_what_the_sources_bring_again(tmp_path: Path, log: Log) -> None:
    """The positions beyond the snapshot are given again, to other data; what was committed stays."""
    commits, archive = Commits(), tmp_path / "archive"
    run = Run(archive, log, commits)
    run.part.write_batch([logs([1, 2])])
    commits.state = run.part.snapshot()
    run.part.write_batch([logs([3, 4]), logs([5])])
    run.part.snapshot()  # this one is lost with the process
    run.sink.finish()
    again = Run(archive, log, commits)
    assert outcomes(again.ledger) == {}
    again.part.write_batch([logs([5]), logs([4, 3])])
    commits.state = again.part.snapshot()
    again.sink.finish()
    assert archived(archive) == dict.fromkeys([1, 2, 3, 4, 5], 1)


def test_the_next_run_commits_what_was_left(tmp_path: Path) -> None:
    """Restored rows count as derived; those a table has already, because the crash came before the trim, do not."""
    commits, archive = Commits(), tmp_path / "archive"
    with open_log(tmp_path) as log:
        run = Run(archive, log, commits)
        run.part.write_batch([logs([1, 2], tenant="a"), logs([3], tenant=None)])
        commits.state = run.part.snapshot()
        run.part.close()
    with open_log(tmp_path) as log:
        second = Run(archive, log, commits, flush_bytes=1)
        assert outcomes(second.ledger) == {("derived", "a", "restored"): 2, ("derived", "", "restored"): 1}
        log.trim = lambda *_: 0  # type: ignore[method-assign]  # the crash
        second.sink.finish()
        second.part.close()
        assert second.files() == 2  # as much at a time as `flush_bytes` allows
    with open_log(tmp_path) as log:
        third = Run(archive, log, commits)
        assert outcomes(third.ledger) == {}
        third.sink.finish()
        third.part.close()
    assert archived(archive) == {1: 1, 2: 1, 3: 1}


def test_a_crash_before_any_epoch_was_committed(tmp_path: Path, log: Log) -> None:
    """The sources send everything again: what the log has is forgotten."""
    commits, archive = Commits(), tmp_path / "archive"
    for _ in range(3):
        run = Run(archive, log, commits)
        run.part.write_batch([logs([1, 2])])
        state = run.part.snapshot()
    commits.state = state
    run.sink.finish()
    assert archived(archive) == {1: 1, 2: 1}


def test_a_log_that_was_lost_starts_a_new_life(tmp_path: Path) -> None:
    """Positions begin at 1 again, under another identity: nothing that comes then is taken for known."""
    commits, archive = Commits(), tmp_path / "archive"
    for life in range(2):
        with open_log(tmp_path / str(life)) as log:
            run = Run(archive, log, commits)
            run.part.write_batch([logs([life * 2, life * 2 + 1])])
            commits.state = run.part.snapshot()
            run.sink.finish()
            run.part.close()
    assert archived(archive) == dict.fromkeys(range(4), 1)


def test_mixed_tenants_are_counted_as_they_are(tmp_path: Path, log: Log) -> None:
    """A batch of two tenants: after a restart each one's records are restored and delivered."""
    commits, archive = Commits(), tmp_path / "archive"
    run = Run(archive, log, commits)
    run.part.write_batch([TelemetryBatch.concat([logs([1, 2], tenant="a"), logs([3], tenant="b")])])
    commits.state = run.part.snapshot()
    again = Run(archive, log, commits)
    again.sink.finish()
    assert outcomes(again.ledger) == {
        ("derived", "a", "restored"): 2,
        ("derived", "b", "restored"): 1,
        ("delivered", "a", ""): 2,
        ("delivered", "b", ""): 1,
    }


def test_an_archive_that_cannot_be_written_holds_nobody_up(tmp_path: Path, log: Log, caplog: Any) -> None:
    """The day's folder cannot be made: said, tried again, and complete once it can."""
    commits, archive = Commits(), tmp_path / "archive"
    run = Run(archive, log, commits, flush_interval="20ms")
    (archive / "logs" / "date=2025-06-15").touch()
    for number in range(5):
        run.part.write_batch([logs([number])])
        commits.state = run.part.snapshot()
    wait_for(lambda: "not committed, tried again" in caplog.text)
    (archive / "logs" / "date=2025-06-15").unlink()
    wait_for(lambda: len(archived(archive)) == 5)
    run.part.close()
    assert archived(archive) == dict.fromkeys(range(5), 1)


def test_a_failure_after_a_commit_doubles_nothing(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table has the rows, but says that it failed: the next try sees that it has them."""
    commits, archive = Commits(), tmp_path / "archive"
    run = Run(archive, log, commits)
    run.part.write_batch([logs([1, 2])])
    commits.state = run.part.snapshot()
    append = ArchiveTable.append_through

    def fail_afterwards(self: ArchiveTable, *args: Any, **options: Any) -> None:
        append(self, *args, **options)
        raise DeliveryError("too late", retryable=True)

    monkeypatch.setattr(ArchiveTable, "append_through", fail_afterwards)
    run.sink.finish()
    monkeypatch.undo()
    run.sink.finish()
    assert archived(archive) == {1: 1, 2: 1}
    assert log.index("flow.archive/archive-000") == []


def test_a_second_writer_or_a_restored_table_ends_the_flow(tmp_path: Path, log: Log) -> None:
    """Never silently: the committer's error comes up in the flow at its next batch, and what waits stays in the log."""
    commits, archive = Commits(), tmp_path / "archive"
    run = Run(archive, log, commits, flush_interval="20ms")
    other = Run(archive, log, commits)
    other.part.write_batch([logs([1])])
    commits.state = other.part.snapshot()
    other.sink.finish()
    run.part.write_batch([logs([2])])
    commits.state = run.part.snapshot()

    def fails() -> bool:
        try:
            run.part.write_batch([logs([3])])
        except ArchiveError as error:
            return "another process writes under the same name" in str(error)
        return False

    wait_for(fails)
    run.part.close()
    assert len(log.index("flow.archive/archive-000")) >= 1


def test_an_archive_ahead_of_the_recovery_state_is_an_error(tmp_path: Path, log: Log) -> None:
    """Somebody put back an old recovery folder: committed rows would come again, so nothing is started."""
    commits, archive = Commits(), tmp_path / "archive"
    run = Run(archive, log, commits)
    run.part.write_batch([logs([1])])
    old = run.part.snapshot()
    run.part.write_batch([logs([2])])
    commits.state = run.part.snapshot()
    run.sink.finish()
    commits.state = old
    with pytest.raises(ArchiveError, match="the recovery state is older than the archive"):
        Run(archive, log, commits)


def test_an_entry_that_is_gone_stops_the_commits(tmp_path: Path) -> None:
    """Removed or damaged under the committer: an error that names the entry, and no commit without it."""
    commits, archive = Commits(), tmp_path / "archive"
    with open_log(tmp_path) as log:
        run = Run(archive, log, commits, flush_bytes=1)
        run.part.write_batch([logs([1]), logs([2])])
        commits.state = run.part.snapshot()
        log.remove("flow.archive/archive-000", [2])
        with pytest.raises(LogError, match=r"entry 2 of flow\.archive/archive-000 is gone"):
            run.sink._committers[0].commit()
        run.sink.finish()
    assert archived(archive) == {1: 1}


@pytest.mark.parametrize("stops", [False, True])
def test_a_full_queue_makes_the_flow_wait(tmp_path: Path, stops: bool) -> None:
    """Until a commit has made room; a stop does not wait for ever, and the epoch is not committed then."""
    commits, archive = Commits(), tmp_path / "archive"
    with open_log(tmp_path, max_bytes=20_000) as log:
        run = Run(archive, log, commits, shutdown_timeout="0s", flush_interval="10ms" if not stops else NEVER)
        number = 0
        while log.stored_bytes < 15_000:
            run.part.write_batch([logs(range(number, number + 10))])
            commits.state = run.part.snapshot()
            number += 10
            if not stops and number > 500:
                break
        if stops:
            run.part.write_batch([logs(range(number, number + 1000))])
            run.sink.stop()
            with pytest.raises(LogFull):
                run.part.snapshot()
            run.part.close()
        else:
            wait_for(lambda: len(archived(archive)) == number)
            run.part.close()


def test_a_log_alone_is_not_enough(tmp_path: Path, log: Log) -> None:
    """Without knowing what is committed nothing could be committed."""
    with pytest.raises(ConfigError, match="expected a log and what the engine has committed together"):
        ArchiveSink(ArchiveSettings(path=tmp_path / "archive"), log=log)


def test_a_flow_that_ends_leaves_a_complete_archive(tmp_path: Path, log: Log) -> None:
    """With the engine itself: `finish` after the end commits the last epoch, too; few files for many epochs."""
    store, archive = tmp_path / "recovery", tmp_path / "archive"
    store.mkdir()
    init_db_dir(store, 1)
    flow = Dataflow("ends")
    with CommittedStates(store) as committed:
        settings = ArchiveSettings.model_validate({"path": archive, "flush_interval": NEVER, "partitions": 2})
        sink = ArchiveSink(settings, ledger=Ledger(), log=log, committed=committed)
        source = op.input("source", flow, TestingSource([logs([n]) for n in range(40)]))
        op.output("archive", op.key_on("key", source, lambda batch: str(batch.records["flags"][0])), sink)
        run_main(flow, epoch_interval=timedelta(0), recovery_config=RecoveryConfig(store))
        assert len(archived(archive)) == 0
        sink.finish()
    assert archived(archive) == dict.fromkeys(range(40), 1)
    assert len(ArchiveTable.open(archive, Signal.LOGS).files()) == 2


_KILLED_FLOW = """
    import sys
    from datetime import timedelta
    from pathlib import Path

    import bytewax.operators as op
    from bytewax.dataflow import Dataflow
    from bytewax.recovery import RecoveryConfig
    from bytewax.testing import run_main

    from connectors.archive import ArchiveSettings, ArchiveSink
    from telflow.delivery.committed import CommittedStates
    from telflow.delivery.log import Durability, Log
    from tests.killed_flow import NumberedSource
    from tests.numbered_logs import logs

    archive, store = map(Path, sys.argv[1:])
    flow = Dataflow("killed")
    up = op.input("source", flow, NumberedSource(logs, pause_s=0.005))
    log = Log(store / "queues.db", durability=Durability.OS, min_free_bytes=0)
    committed = CommittedStates(store)
    settings = ArchiveSettings(path=archive, partitions=2, flush_interval=timedelta(milliseconds=30))
    sink = ArchiveSink(settings, log=log, committed=committed)
    op.output("archive", op.key_on("key", up, lambda b: str(b.records["flags"][0])), sink)
    print("ready", flush=True)
    run_main(flow, epoch_interval=timedelta(milliseconds=20), recovery_config=RecoveryConfig(store))
    sink.finish()
    log.close()
    committed.close()
"""


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """SIGKILL again and again, two sources that replay in any order: at the end every record is there exactly once."""
    store, archive = tmp_path / "recovery", tmp_path / "archive"
    store.mkdir()
    init_db_dir(store, 1)
    run_and_kill(tmp_path, _KILLED_FLOW, archive, store, after_s=(0.2, 1.0))
    assert archived(archive) == dict.fromkeys(ALL, 1)
