"""What a supervisor must know of a target before it starts workers; found out in a process that ends.

What a flow imports has no place in the supervisor.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from control.exit_codes import ExitCode, FlowError, UnavailableError
from control.flow_file import is_settings_file
from telflow.errors import ConfigError

__all__ = ["Described", "describe", "describe_target"]

_ERRORS = {int(ExitCode.USAGE): ConfigError, int(ExitCode.UNAVAILABLE): UnavailableError}


@dataclass(frozen=True, slots=True)
class Described:
    """A flow, or a gateway's settings.

    Attributes:
        flow_id: The flow's name.
        storage: Folder of what a gateway keeps; None for a flow.
        recovery_dir: Folder of a gateway's state, where its settings name one.
    """

    flow_id: str
    storage: str | None = None
    recovery_dir: str | None = None


def describe_target(target: str) -> dict[str, Any]:
    """Return the fields of `Described`; loads the flow, or reads the settings and checks them.

    Raises:
        ConfigurationError: The settings are wrong.
        FlowError: The flow cannot be loaded.
    """
    from control.engine import one_thread_per_library

    one_thread_per_library()
    if target and not is_settings_file(target):
        from control.flow_file import load_flow

        return {"flow_id": load_flow(target).flow.flow_id}
    from control.target import settings_of
    from flows.gateway import FLOW_ID, check

    settings, _ = settings_of(target or None)
    check(settings)
    storage, recovery_dir = settings.storage.folder(FLOW_ID).absolute(), settings.recovery_dir
    return {
        "flow_id": FLOW_ID,
        "storage": str(storage),
        "recovery_dir": None if recovery_dir is None else str(recovery_dir.absolute()),
    }


def describe(target: str) -> Described:
    """Find out about a target in another process.

    Raises:
        ConfigError: The settings are wrong.
        FlowError: The flow cannot be loaded.
        UnavailableError: Something that it needs cannot be used.
    """
    command = [sys.executable, "-P", "-m", "telflow", "worker", "--describe", "--output", "json", "--", target]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode == 0:
        return Described(**json.loads(done.stdout.splitlines()[-1]))
    raise _ERRORS.get(done.returncode, FlowError)(_error_text(done.stderr))


def _error_text(stderr: str) -> str:
    with contextlib.suppress(ValueError, KeyError, IndexError):
        return str(json.loads(stderr.splitlines()[-1])["error"]["message"])
    return stderr.strip()
