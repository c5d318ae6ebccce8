"""What a worker knows to be committed: never more than its source has shown, or the files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, run_main

from connectors.placed_sink import PlacedSink
from telflow.delivery import committed_here
from telflow.delivery.committed import CommittedStates
from telflow.delivery.committed_here import CommittedHere
from telflow.placement import ALONE
from tests.connectors.test_placed_sink import Counting


def test_a_snapshot_counts_once_the_source_is_asked_again() -> None:
    """A later one not before it is asked once more; what was resumed from counts at once."""
    committed = CommittedHere()
    committed.resumed("out", "a", 1)
    committed.snapshotted("out", "a", 2)
    assert committed.get("out", "a") == 1
    committed.commit()
    committed.snapshotted("out", "a", 3)
    assert committed.get("out", "a") == 2
    assert committed.get("out", "b") is None


def test_at_a_place_partitions_have_their_own_names() -> None:
    """The same partition at two places is two."""
    committed = CommittedHere()
    committed.resumed("out", "a", 1)
    committed.resumed("out", "a@2", 5)
    assert [committed.at(place).get("out", "a") for place in ("0", "1", "2")] == [1, None, 5]
    committed.at("0").close()


def test_after_a_run_the_files_say_what_of_the_last_epoch_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they have counts, what they do not have is waited for, then left."""
    init_db_dir(tmp_path, 1)
    committed = CommittedHere()
    flow = Dataflow("flow")
    items = op.input("in", flow, TestingSource([("0", 1), ("0", 2)]))
    sink: Any = PlacedSink(ALONE, {"0": Counting(["p"])}, committed)
    op.output("out", items, sink)
    run_main(flow, recovery_config=RecoveryConfig(tmp_path))
    assert committed.get("flow.out", "p") is None
    committed.snapshotted("flow.out", "other", 9)
    monkeypatch.setattr(committed_here, "_LAST_WAIT_S", 0.2)
    with CommittedStates(tmp_path) as files:
        committed.commit_last(files)
    assert committed.get("flow.out", "p") == 2
    assert committed.get("flow.out", "other") is None
