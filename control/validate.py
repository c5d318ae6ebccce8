"""`telflow validate`: everything that is wrong with a settings file, at once."""

from __future__ import annotations

from typing import Annotated

import typer

from control.screen import DebugOption, Output, OutputOption, Screen

__all__ = ["validate"]


def validate(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SETTINGS.yaml]...", help="The files. [default: telflow.yaml]", show_default=False),
    ] = None,
    output: OutputOption = Output.HUMAN,
    debug: DebugOption = False,  # noqa: ARG001
) -> None:
    """Check settings files. Every mistake is shown with its place, what was expected, and the nearest known key.

    Nothing is opened or written. Ends with 0 when all are right and with 2 when one is not.

    **Examples**

    Check telflow.yaml:

        telflow validate

    Check two files, for a program:

        telflow validate eu.yaml us.yaml --output json
    """
    from control.engine import one_thread_per_library

    one_thread_per_library()
    from control.exit_codes import ExitCode
    from control.target import DEFAULT_SETTINGS
    from flows.gateway import GatewaySettings, check
    from telflow.configuration import ConfigurationError, load
    from telflow.errors import ConfigError

    screen = Screen(output)
    right = True
    for file in files or [str(DEFAULT_SETTINGS)]:
        problems = []
        message = ""
        try:
            check(load(file, GatewaySettings))
        except ConfigurationError as error:
            problems, message = [p.to_dict() for p in error.problems], str(error)
        except ConfigError as error:
            message = f"{file}: {error}"
        screen.result(
            {"file": file, "valid": not message, "problems": problems, "message": message}, message or f"{file}: valid"
        )
        right = right and not message
    if not right:
        raise typer.Exit(ExitCode.USAGE)
