"""What `telflow run` and `telflow graph` are pointed at: a gateway's settings or a module with a flow."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from bytewax.dataflow import Dataflow

from control.flow_file import is_settings_file, load_flow
from flows.gateway import GatewaySettings, build
from telflow.configuration import load
from telflow.delivery.intake import MemoryIntake

__all__ = ["DEFAULT_SETTINGS", "archive_of", "flow_of", "settings_of"]

DEFAULT_SETTINGS = Path("telflow.yaml")
"""The settings file that is used when none is named and this one exists."""

_DEFAULT_ARCHIVE = Path("telflow-data/archive")


def settings_of(target: str | None) -> tuple[GatewaySettings, str]:
    """Return the gateway's settings and where they come from.

    Raises:
        ConfigurationError: They are wrong.
    """
    if target is None and not DEFAULT_SETTINGS.exists():
        return GatewaySettings(), "default settings"
    file = target or str(DEFAULT_SETTINGS)
    return load(file, GatewaySettings), file


def archive_of(target: str | None) -> Path:
    """Return the folder of the archive a gateway with these settings writes, or the usual one.

    Raises:
        ConfigurationError: They are wrong.
    """
    settings, _ = settings_of(target)
    return settings.archive.path if settings.archive is not None else _DEFAULT_ARCHIVE


def flow_of(target: str | None) -> Dataflow:
    """Build the flow a target names, without running it.

    Raises:
        ConfigurationError: The settings are wrong.
        FlowError: The module cannot be loaded or has no flow.
    """
    if target is None or is_settings_file(target):
        settings, _ = settings_of(target)
        with TemporaryDirectory(prefix="telflow-") as folder:  # sinks make theirs when they are built
            return build(_elsewhere(settings, Path(folder)), MemoryIntake())
    return load_flow(target).flow


def _elsewhere(settings: GatewaySettings, folder: Path) -> GatewaySettings:
    """Return the settings with all that is written below another folder."""
    archive = settings.archive and settings.archive.model_copy(update={"path": folder / "archive"})
    quarantine = settings.quarantine.model_copy(update={"path": folder / "quarantine"})
    storage = settings.storage.model_copy(update={"dir": folder / "storage"})
    return settings.model_copy(update={"archive": archive, "quarantine": quarantine, "storage": storage})
