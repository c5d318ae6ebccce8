"""The folder of a flow's state: made, checked, held by one supervisor, and shown."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import numpy as np
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource

from control.cluster.node import frontiers
from control.engine import run_dataflow
from control.exit_codes import UnavailableError
from control.recovery_store import FORMAT, locked, part_files, prepare_store, wait_until_unused, worker_lock
from control.state_store import keys_of, step_ids, store_of
from tests.command import Command


def counting() -> Dataflow:
    flow = Dataflow("counting")
    numbers = op.input("numbers", flow, TestingSource([TestingSource.PAUSE(timedelta(milliseconds=1)), *range(10)]))
    keyed = op.key_on("key", numbers, lambda number: str(number % 3))
    sums = op.stateful_map("sum", keyed, lambda state, value: ((state or {"version": 7}) | {str(value): value}, value))
    op.output("out", sums, TestingSink([]))
    return flow


def ran(folder: Path) -> Path:
    run_dataflow(counting(), recovery_dir=folder, epoch=timedelta())
    return folder


def test_a_folder_is_made_with_a_note_for_its_owner_only(tmp_path: Path) -> None:
    """One file of the engine's, and whose it is; a second time changes nothing."""
    folder = tmp_path / "new" / "state"
    for _ in range(2):
        prepare_store(folder, "mine")
        assert [path.name for path in part_files(folder)] == ["part-0.sqlite3"]
    assert json.loads((folder / "telflow.json").read_text()) == {"format": FORMAT, "flow_id": "mine"}
    assert folder.stat().st_mode & 0o077 == 0


def test_each_of_several_hosts_keeps_one_part(tmp_path: Path) -> None:
    """Two hosts with folders of their own; another number of hosts is refused with a hint."""
    for index in range(2):
        prepare_store(tmp_path / f"host-{index}", "mine", index=index, count=2)
        assert [path.name for path in part_files(tmp_path / f"host-{index}")] == [f"part-{index}.sqlite3"]
    with pytest.raises(UnavailableError, match="expected the state of 3 hosts, got that of 2"):
        prepare_store(tmp_path / "host-0", "mine", index=0, count=3)
    with pytest.raises(UnavailableError, match="bring the other files here"):
        prepare_store(tmp_path / "host-0", "mine")


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ('{"format": 999, "flow_id": "mine"}', f"expected state of format {FORMAT}, got 999"),
        (f'{{"format": {FORMAT}, "flow_id": "other"}}', "expected the state of the flow mine, got that of other"),
        ("not a note", "expected telflow's note"),
    ],
)
def test_state_of_another_release_or_flow_is_refused(tmp_path: Path, note: str, message: str) -> None:
    """Before the engine opens anything."""
    prepare_store(tmp_path, "mine")
    (tmp_path / "telflow.json").write_text(note)
    with pytest.raises(UnavailableError, match=message):
        prepare_store(tmp_path, "mine")


def test_a_file_that_is_none_of_the_engines_is_named(tmp_path: Path) -> None:
    """Damaged, or something else under its name."""
    prepare_store(tmp_path, "mine")
    (tmp_path / "part-0.sqlite3").write_bytes(b"x" * 8192)
    with pytest.raises(UnavailableError, match=r"part-0\.sqlite3 cannot be read"):
        prepare_store(tmp_path, "mine")


def test_one_supervisor_has_a_folder_and_waits_for_workers_of_an_earlier_one(tmp_path: Path) -> None:
    """The second is told who has it; a worker that lives is waited for."""
    with locked(tmp_path, "the flow mine"):
        with pytest.raises(UnavailableError, match=f"process {os.getpid()}"), locked(tmp_path, "the flow mine"):
            pass
        with worker_lock(tmp_path), pytest.raises(UnavailableError, match="still use it"):
            wait_until_unused(tmp_path, timeout_s=0.1)
        wait_until_unused(tmp_path)
    with locked(tmp_path, "the flow mine"):
        pass


def test_inspect_shows_steps_keys_versions_and_where_the_next_run_begins(tmp_path: Path, telflow: Command) -> None:
    """As JSON and for people; the numbers are those of the engine's files."""
    store = store_of(ran(tmp_path / "state"))
    steps = {step.step_id: step for step in store.steps}
    sums = steps["counting.sum.stateful_flat_map.stateful.stateful_batch"]
    assert (store.flow_id, store.format, store.runs, store.workers) == ("counting", FORMAT, 1, 1)
    assert (sums.keys, sums.versions) == (3, (7,))
    assert store.resume_epoch == frontiers(tmp_path / "state")[0][1]
    assert step_ids(tmp_path / "state") == set(steps)
    keys = keys_of(tmp_path / "state", sums.step_id)
    assert [key.key for key in keys] == ["0", "1", "2"]
    assert "'9': 9" in keys[0].shown

    told = telflow("state", "inspect", str(tmp_path / "state"), "--output", "json").json
    assert told["resume_epoch"] == store.resume_epoch
    assert "next run begins with epoch" in telflow("state", "inspect", str(tmp_path / "state")).out
    assert "'9': 9" in telflow("state", "inspect", str(tmp_path / "state"), "--step", sums.step_id).out
    assert telflow("state", "inspect", str(tmp_path)).code == 4


class _Harmful:
    """Would make a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


def test_inspect_runs_nothing_that_a_state_holds(tmp_path: Path) -> None:
    """A pickle can name any function; plain data and numpy arrays are read, anything else is not."""
    folder = ran(tmp_path / "state")
    states = {"harm": _Harmful(tmp_path / "harmed"), "array": {"version": 2, "a": np.arange(3)}}
    with sqlite3.connect(folder / "part-0.sqlite3") as connection:
        for key, state in states.items():
            row = ("counting.other", key, 1, pickle.dumps(state))
            connection.execute("INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change) VALUES (?,?,?,?)", row)
    array, harm = keys_of(folder, "counting.other")
    assert (array.version, "array([0, 1, 2])" in array.shown) == (2, True)
    assert "no plain data" in harm.shown
    assert not (tmp_path / "harmed").exists()
