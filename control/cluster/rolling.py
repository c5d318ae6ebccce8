"""Whether a new version of a flow can go on with the state of the old one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from control.exit_codes import FlowError
from telflow.errors import nearest

__all__ = ["check_version", "missing_steps"]


def check_version(target: str, running: dict[str, Any], *, drop_state: bool = False) -> None:
    """Load a new version and compare its steps with the state that a running cluster keeps.

    Args:
        target: The new version.
        running: What `telflow status` says of the cluster.
        drop_state: Accept that steps are missing.

    Raises:
        FlowError: It cannot be loaded, is another flow, or lacks steps that have state.
    """
    from control.engine import one_thread_per_library

    one_thread_per_library()
    from control.flow_steps import steps_of
    from control.state_store import step_ids
    from control.target import flow_of

    flow = flow_of(target)
    if flow.flow_id != running["flow"]:
        raise FlowError(
            f'{target}: expected a version of the flow "{running["flow"]}", got the flow "{flow.flow_id}"\n'
            "  hint: state belongs to a flow's name; another flow runs beside this one"
        )
    missing = missing_steps(step_ids(Path(running["recovery_dir"])), (step.step_id for step in steps_of(flow)))
    if missing and not drop_state:
        lines = [f"    {step}" + (f"  (did you mean {near}?)" if near else "") for step, near in missing.items()]
        raise FlowError(
            f"{target}: expected the steps whose state is kept, these are missing:\n" + "\n".join(lines) + "\n"
            "  hint: give the steps their former ids; or --drop-state, to lose what they know"
        )


def missing_steps(kept: Iterable[str], steps: Iterable[str]) -> dict[str, str]:
    """Return the steps with state that a flow does not have, each with the nearest that it has.

    >>> missing_steps({"flow.sums", "flow.in"}, ["flow.in", "flow.sum"])
    {'flow.sums': 'flow.sum'}
    """
    there = set(steps)
    return {step: nearest(step, there) or "" for step in sorted(set(kept) - there)}
