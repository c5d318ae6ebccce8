"""`telflow deadletter`: what nobody wanted, to be looked at, sent once more, or thrown away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from control.screen import DebugOption, Output, OutputOption, Screen

__all__ = ["deadletter", "list_letters", "purge", "replay", "show"]

deadletter = typer.Typer(
    name="deadletter",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Look at, replay and purge what destinations refused for good and receivers could not decode.",
)

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        "-s",
        help="A store's file. [default: deadletter.db of each worker in the storage folder of telflow.yaml]",
        show_default=False,
    ),
]
OriginOption = Annotated[str | None, typer.Option(help="Only letters of this destination or receiver.")]
ReasonOption = Annotated[str | None, typer.Option(help="Only letters whose reason contains this text.")]
TenantOption = Annotated[str | None, typer.Option(help="Only this tenant's letters.")]
SignalOption = Annotated[str | None, typer.Option(help="Only traces, metrics or logs.")]
IdsArgument = Annotated[list[str] | None, typer.Argument(help="Letters, by the ids that `list` shows; all without.")]


@deadletter.command("list")
def list_letters(
    store: StoreOption = None,
    origin: OriginOption = None,
    reason: ReasonOption = None,
    tenant: TenantOption = None,
    signal: SignalOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Most letters a person is shown; JSON is whole.")] = 50,
    output: OutputOption = Output.HUMAN,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """List the dead letters of all workers, the oldest first. Works while the gateway runs.

    **Examples**

    What is there:

        telflow deadletter list

    What one destination refused, for a program:

        telflow deadletter list --origin gateway.export_backend.write --output json
    """
    from control.deadletter_run import Selection, run_list, stores_of

    run_list(stores_of(store), Selection(None, origin, reason, tenant, signal), limit, Screen(output))


@deadletter.command("show")
def show(
    id: Annotated[str, typer.Argument(help="The letter, by the id that `list` shows.")],  # noqa: A002 - as users say
    store: StoreOption = None,
    rows: Annotated[int, typer.Option(min=0, help="Most records to show.")] = 5,
    raw: Annotated[Path | None, typer.Option(help="Write the payload as it came to this file.")] = None,
    output: OutputOption = Output.HUMAN,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Show one dead letter: where it comes from, why it is here, and its records. It may hold personal data.

    **Examples**

    Its first records:

        telflow deadletter show 5f0a1c-17

    Its payload, for another tool:

        telflow deadletter show 5f0a1c-17 --raw request.bin
    """
    from control.engine import one_thread_per_library

    one_thread_per_library()
    from control.deadletter_run import run_show, stores_of

    run_show(stores_of(store), id, rows, raw, Screen(output))


@deadletter.command("replay")
def replay(
    to: Annotated[str, typer.Option("--to", "-t", help="host:port (OTLP/gRPC) or http://host:port (OTLP/HTTP).")],
    ids: IdsArgument = None,
    store: StoreOption = None,
    origin: OriginOption = None,
    reason: ReasonOption = None,
    tenant: TenantOption = None,
    signal: SignalOption = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep what was delivered; works while the gateway runs.")
    ] = False,
    output: OutputOption = Output.HUMAN,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Send dead letters once more; what is delivered is removed from the store, the rest stays.

    Without `--keep` no gateway may run on these stores. Ends with 0 when every letter was delivered, with 5 when some
    were not.

    **Examples**

    Everything, to the backend that has been repaired:

        telflow deadletter replay --to backend:4317

    One letter, to a test receiver, without removing it:

        telflow deadletter replay 5f0a1c-17 --to http://localhost:4318 --keep
    """
    from control.engine import one_thread_per_library

    one_thread_per_library()
    from control.deadletter_run import Selection, run_replay, stores_of

    selection = Selection(ids, origin, reason, tenant, signal)
    run_replay(stores_of(store), selection, to, Screen(output), keep=keep)


@deadletter.command("purge")
def purge(
    ids: IdsArgument = None,
    store: StoreOption = None,
    origin: OriginOption = None,
    reason: ReasonOption = None,
    tenant: TenantOption = None,
    signal: SignalOption = None,
    older_than: Annotated[
        str | None, typer.Option(help="Only letters that came so long ago, for example 7d.", metavar="DURATION")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: OutputOption = Output.HUMAN,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Delete dead letters for good. No gateway may run on these stores.

    **Examples**

    What is older than a month:

        telflow deadletter purge --older-than 30d

    Everything of one tenant, without a question:

        telflow deadletter purge --tenant acme --yes
    """
    from control.deadletter_run import Selection, run_purge, stores_of

    selection = Selection(ids, origin, reason, tenant, signal, older_than)
    run_purge(stores_of(store), selection, Screen(output), ask=not yes)
