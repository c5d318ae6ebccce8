"""`telflow replay`: an archive sent once more."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from control.screen import DebugOption, Output, OutputOption, Screen

__all__ = ["replay"]


def replay(
    to: Annotated[
        str,
        typer.Option(
            "--to", "-t", help="host:port (OTLP/gRPC), http://host:port (OTLP/HTTP), archive:FOLDER, or console."
        ),
    ],
    archive: Annotated[
        Path | None,
        typer.Option(
            "--archive",
            "-a",
            help="The archive's folder. [default: the one of telflow.yaml, else telflow-data/archive]",
            show_default=False,
        ),
    ] = None,
    signal: Annotated[list[str] | None, typer.Option(help="traces, metrics or logs; may be repeated.")] = None,
    start: Annotated[
        str | None, typer.Option(help="First moment, as 2026-01-31 or 2026-01-31T08:00:00Z; UTC unless it says.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="The moment to stop before.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's records.")] = None,
    service: Annotated[str | None, typer.Option(help="Only this service's records.")] = None,
    rate: Annotated[float | None, typer.Option(help="Most records a second. [default: as fast as possible]")] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Read and send in so many processes, which share the tenants.", min=1, show_default=False),
    ] = None,
    deal: Annotated[
        str, typer.Option(help="With --workers: tenant, each one's records in their order; or file, quicker.")
    ] = "tenant",
    recovery_dir: Annotated[
        Path | None,
        typer.Option(help="Keep here how far it is; the same command goes on there when it was interrupted."),
    ] = None,
    output: OutputOption = Output.HUMAN,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Send what an archive holds once more: everything, or a time range, a tenant, a service.

    Ends with 0 when every selected record was delivered, with 5 when some were not; in several processes, too.

    **Examples**

    Look at it:

        telflow replay --to console

    A day of one tenant into another backend, at most 5000 records a second:

        telflow replay --to backend:4317 --tenant acme --start 2026-01-31 --end 2026-02-01 --rate 5000

    Traces into another archive:

        telflow replay --archive telflow-data/archive --to archive:copy --signal traces

    A year, in four processes, to be gone on with when it is stopped, killed, or the machine fails:

        telflow replay --to backend:4317 --workers 4 --recovery-dir replay-state
    """
    from control.engine import one_thread_per_library

    one_thread_per_library()
    from control.replay_flow import ReplayOrder
    from control.replay_run import run_replay, run_replay_cluster
    from control.target import archive_of
    from flows.replay import ReplaySettings
    from telflow.configuration import from_options

    options: dict[str, Any] = {
        "path": archive or archive_of(None),
        "signals": tuple(signal or ()),
        "start": _moment("--start", start),
        "end": _moment("--end", end),
        "tenant": tenant,
        "service": service,
        "rate": rate,
        "partitions": workers or 1,
        "deal": deal,
    }
    order = ReplayOrder(from_options(ReplaySettings, options), to, recovery_dir)
    if workers is None:
        run_replay(order, Screen(output))
    else:
        run_replay_cluster(order, workers, Screen(output))


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"expected a date such as 2026-01-31 or a time such as 2026-01-31T08:00:00Z, got {text!r}",
            param_hint=option,
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
