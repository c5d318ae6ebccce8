"""The import packages that make up telflow, and what stands in the way of importing them.

`operators`, `connectors`, `flows` and `control` are common words. A folder of that name in a user's project, when it
comes earlier on the import path, would be imported in their place. `pin` makes sure that telflow always gets its own,
and `shadows` finds what would have been imported, so that the user can be told.
"""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

__all__ = ["PACKAGES", "ROOT", "Shadow", "pin", "shadows"]

ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds this `telflow`, and so the packages that belong to it."""

PACKAGES = ("operators", "connectors", "flows", "control")
"""telflow's packages whose names others may use too."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """Something that comes before one of telflow's packages on the import path.

    Attributes:
        package: The package's name.
        found: The folder or file that would be imported.
        entry: The entry of the import path it was found under.
    """

    package: str
    found: Path
    entry: str

    def __str__(self) -> str:
        return (
            f"{self.found} has the name of telflow's own package '{self.package}' and stands before it on the import "
            f"path (through {self.entry!r}). telflow goes on with its own; code that says `import {self.package}` "
            f"gets telflow's too. Rename the folder, or take {self.entry!r} off PYTHONPATH and use the command "
            "`telflow` rather than `python -m telflow`."
        )


def shadows(path: Sequence[str] | None = None) -> list[Shadow]:
    """Return what would be imported in place of telflow's packages.

    Args:
        path: The import path; `sys.path` by default.
    """
    path = sys.path if path is None else path
    found = []
    for package in PACKAGES:
        for entry in path:
            spec = PathFinder.find_spec(package, [entry])
            if spec is None or spec.origin is None:  # nothing there, or a folder without __init__.py: it never wins
                continue
            origin = Path(spec.origin)
            place = (origin.parent if origin.name.startswith("__init__.") else origin).resolve()
            if place != ROOT / package:
                found.append(Shadow(package, place, entry))
            break  # the first on the path is the one that counts
    return found


class _OwnPackages:
    """A finder that knows where telflow's packages are, whatever the import path says."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in PACKAGES or path is not None:
            return None
        return importlib.machinery.PathFinder.find_spec(name, [str(ROOT)], target)


def pin() -> None:
    """Make every later import of telflow's packages find telflow's; calling it again changes nothing."""
    if _OwnPackages not in sys.meta_path:
        sys.meta_path.insert(0, _OwnPackages)
