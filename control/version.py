"""`telflow version`: what runs here, for a report."""

from __future__ import annotations

import importlib.metadata
import platform

from control.screen import DebugOption, Output, OutputOption, Screen, table

__all__ = ["version"]

_SHOWN = ("bytewax", "pyarrow", "polars", "deltalake", "grpcio", "opentelemetry-proto", "pydantic")


def version(output: OutputOption = Output.HUMAN, debug: DebugOption = False) -> None:  # noqa: ARG001
    """Show the versions of telflow and of what it stands on.

    **Examples**

    For a report:

        telflow version

    For a program:

        telflow version --output json
    """
    from telflow import _native

    versions = {"telflow": _native.__version__, "python": platform.python_version(), "platform": platform.platform()}
    versions |= {name: importlib.metadata.version(name) for name in _SHOWN}
    shown = table("", "")
    shown.show_header = False
    for name, value in versions.items():
        shown.add_row(name, value)
    Screen(output).result(versions, shown)
