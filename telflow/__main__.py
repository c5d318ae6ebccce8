"""The `telflow` command, also as `python -m telflow`.

It starts here, in the one package whose name is telflow's alone: `control` could be a folder of the user's.
"""

from __future__ import annotations

import importlib
import sys

from telflow import packages

__all__ = ["main"]


def main() -> None:
    """Make sure that telflow's packages are its own, then run the command."""
    for shadow in packages.shadows():
        print(f"telflow: warning: {shadow}", file=sys.stderr)  # noqa: T201 - nothing else may be imported yet
    packages.pin()
    # Not an import statement: the layer `control` stands above this one, and only the command goes upward.
    importlib.import_module("control.main").main()


if __name__ == "__main__":
    main()
