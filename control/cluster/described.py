"""What a supervisor must know of a target before it starts workers; found out in a process that ends.

What a flow imports has no place in the supervisor, nor in the process that workers are forked from.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass

from control.exit_codes import ExitCode, FlowError, UnavailableError, code_of
from control.flow_file import is_settings_file
from telflow.errors import ConfigError, TelflowError

__all__ = ["Described", "describe_target", "description_from", "tell_description"]

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


def describe_target(target: str) -> Described:
    """Load the flow, or read the settings and check them.

    Raises:
        ConfigurationError: The settings are wrong.
        FlowError: The flow cannot be loaded.
    """
    if target and not is_settings_file(target):
        from control.flow_file import load_flow

        return Described(load_flow(target).flow.flow_id)
    from control.target import settings_of
    from flows.gateway import FLOW_ID, check

    settings, _ = settings_of(target or None)
    check(settings)
    storage, recovery_dir = settings.storage.folder(FLOW_ID).absolute(), settings.recovery_dir
    return Described(FLOW_ID, str(storage), None if recovery_dir is None else str(recovery_dir.absolute()))


def tell_description(target: str, descriptor: int) -> None:
    """Write what a target is to a descriptor, as `description_from` reads it; below whatever the target itself writes.

    For a process that does nothing else: its output is redirected.
    """
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    sys.stdout = sys.stderr = os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace")
    try:
        said = asdict(describe_target(target))
    except TelflowError as error:
        said = {"error": str(error), "code": int(code_of(error))}
    print(f"\n{json.dumps(said)}", flush=True)  # noqa: T201 - the answer to the supervisor


def description_from(text: str) -> Described:
    """Read what `tell_description` has written.

    Raises:
        ConfigError: The settings are wrong.
        FlowError: The flow cannot be loaded.
        UnavailableError: Something that it needs cannot be used.
    """
    try:
        said = json.loads(text.splitlines()[-1])
    except (ValueError, IndexError):
        raise FlowError(f"expected a flow that can be loaded, the process that did it has ended:\n{text}") from None
    if "error" in said:
        raise _ERRORS.get(said["code"], FlowError)(said["error"])
    return Described(**said)
