"""The note of how many places each host of a cluster has (`telflow.placement`); beside the flow's state.

A place that was ever used stays: there may be data at it, and the engine keeps its partitions' state. So the numbers
never become smaller.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from control.exit_codes import UnavailableError
from telflow.placement import ALONE, Placement, places_of

__all__ = ["NOTE", "grow_places", "placement_alone", "read_places"]

NOTE = "places.json"


def read_places(folder: Path) -> dict[str, int]:
    """Return how many places each host has; nothing when no cluster ever ran.

    Raises:
        UnavailableError: The note cannot be read.
    """
    try:
        text = (folder / NOTE).read_text("utf-8")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UnavailableError(f"recovery_dir: {folder / NOTE} cannot be read: {error.strerror}") from error
    try:
        return {str(host): int(count) for host, count in json.loads(text).items()}
    except (ValueError, AttributeError) as error:
        raise UnavailableError(f"{folder / NOTE}: expected a number of places for each host: {error}") from error


def grow_places(folder: Path, workers: Mapping[str, int]) -> dict[str, int]:
    """Make sure that each host has a place for each worker; returns how many places each has.

    A cluster on one host has the same places under whatever name, so that the host may be renamed.

    Raises:
        UnavailableError: The note cannot be read or written.
    """
    before = read_places(folder)
    if len(workers) == 1 and len(before) == 1:
        before = dict(zip(workers, before.values(), strict=True))
    counts = {host: max(count, before.get(host, 0), 1) for host, count in workers.items()}
    if counts != before:
        new = folder / f"{NOTE}.new"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            new.write_text(json.dumps(counts) + "\n", "utf-8")
            new.replace(folder / NOTE)
        except OSError as error:
            raise UnavailableError(f"recovery_dir: {new} cannot be written: {error.strerror}") from error
    return counts


def placement_alone(folder: Path | None) -> Placement:
    """Return the placement of a flow in one process: what a cluster on this host has left is all its.

    Raises:
        UnavailableError: The note cannot be read.
    """
    counts = {} if folder is None else read_places(folder)
    if len(counts) != 1:
        return ALONE
    (host,) = counts
    every, here = places_of(counts, host, 0, 1)
    return Placement(every, here)
