"""Exit codes of the `telflow` command; docs/reference/exit-codes.md is written from this table."""

from __future__ import annotations

import enum
from typing import Self

from telflow.configuration import ConfigurationError
from telflow.errors import ConfigError, TelflowError

__all__ = ["ExitCode", "FlowError", "LossError", "UnavailableError", "code_of"]


class ExitCode(enum.IntEnum):
    """What the command's exit status says.

    Attributes:
        meaning: When a command ends with it.
    """

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        """Make a member of a number and its meaning."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    OK = 0, "Done. A gateway that was told to stop has drained; nothing was lost."
    FAILURE = 1, "The command could not do its work; the message says why."
    USAGE = 2, "The command line or a configuration file is wrong; nothing was started."
    FLOW = 3, "A user's flow cannot be loaded, or its code raised an error; the message names file, line and step."
    UNAVAILABLE = (
        4,
        "Something outside is not usable: a port is taken, a directory not writable, an endpoint does not answer.",
    )
    LOSS = 5, "It ran to its end, but records were dropped, refused or are unaccounted for; the table says which."
    BUG = 70, "An error telflow did not expect; it prints the traceback. Please report it."
    INTERRUPTED = 130, "Ctrl-C ended a command that had nothing to drain."


class FlowError(TelflowError):
    """A user's flow cannot be loaded or raised an error."""


class UnavailableError(TelflowError):
    """Something outside of telflow is not usable."""


class LossError(TelflowError):
    """A command ran to its end, but records did not arrive."""


_CODES: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (ConfigurationError, ExitCode.USAGE),
    (ConfigError, ExitCode.USAGE),
    (FlowError, ExitCode.FLOW),
    (UnavailableError, ExitCode.UNAVAILABLE),
    (LossError, ExitCode.LOSS),
    (TelflowError, ExitCode.FAILURE),
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
)


def code_of(error: BaseException) -> ExitCode:
    """Return the exit code an error ends the command with.

    >>> code_of(ConfigError("no such key"))
    <ExitCode.USAGE: 2>
    """
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.BUG)
