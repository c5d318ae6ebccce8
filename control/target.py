"""What `telflow run` and `telflow graph` are pointed at: a gateway's settings or a module with a flow."""

from __future__ import annotations

from pathlib import Path

from bytewax.dataflow import Dataflow

from control.flow_file import load_flow

__all__ = ["DEFAULT_SETTINGS", "flow_of"]

DEFAULT_SETTINGS = Path("telflow.yaml")
"""The settings file that is used when none is named and this one exists."""


def flow_of(target: str | None) -> Dataflow:
    """Build the flow a target names, without running it.

    Raises:
        ConfigurationError: The settings are wrong.
        FlowError: The module cannot be loaded or has no flow.
    """
    return load_flow(str(target)).flow
