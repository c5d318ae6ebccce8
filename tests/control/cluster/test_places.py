"""The note of places: it only grows, and one process alone takes over what a cluster has left."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.cluster.places import NOTE, grow_places, placement_alone, read_places
from control.exit_codes import UnavailableError
from telflow.placement import ALONE


def test_places_grow_and_never_shrink(tmp_path: Path) -> None:
    """Each host has as many as it ever had workers, and one at least."""
    assert read_places(tmp_path) == {}
    assert grow_places(tmp_path, {"a": 2, "b": 0}) == {"a": 2, "b": 1}
    assert grow_places(tmp_path, {"a": 1, "b": 4}) == {"a": 2, "b": 4}
    assert read_places(tmp_path) == {"a": 2, "b": 4}


def test_the_one_host_may_be_renamed(tmp_path: Path) -> None:
    """From `--workers` to a cluster file of one host: the same places."""
    grow_places(tmp_path, {"local": 3})
    assert grow_places(tmp_path, {"host-1": 1}) == {"host-1": 3}


def test_one_process_takes_over_a_clusters_places(tmp_path: Path) -> None:
    """Those of one host; without a cluster before it, it is alone."""
    assert placement_alone(None) == placement_alone(tmp_path) == ALONE
    grow_places(tmp_path, {"local": 3})
    found = placement_alone(tmp_path)
    assert found.all == found.here == ("0", "1", "2")
    assert found.workers == 1
    grow_places(tmp_path / "several", {"a": 1, "b": 1})
    assert placement_alone(tmp_path / "several") == ALONE


@pytest.mark.parametrize("text", ["no json", "[]", '{"a": "many"}'])
def test_a_note_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    """With its path."""
    (tmp_path / NOTE).write_text(text)
    with pytest.raises(UnavailableError, match=NOTE):
        read_places(tmp_path)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match="cannot be read"):
        grow_places(tmp_path / "file", {"a": 1})
    (tmp_path / NOTE).mkdir()
    with pytest.raises(UnavailableError, match="cannot be read"):
        read_places(tmp_path)
