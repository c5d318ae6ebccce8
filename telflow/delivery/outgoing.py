"""What a flow's destinations share to keep what is not delivered yet."""

from __future__ import annotations

from dataclasses import dataclass

from telflow.delivery.committed import CommittedStates
from telflow.delivery.committed_here import CommittedAt
from telflow.delivery.dead_letters import DeadLetters
from telflow.delivery.log import Log

__all__ = ["IN_MEMORY", "Outgoing"]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Where destinations keep data; each has its own part of it.

    Attributes:
        queues: The log of the sending queues; None: they live in memory.
        dead_letters: Keeps what is refused for good; None: it is only counted.
        committed: Says which epochs the engine has committed; None: the engine keeps no state.
    """

    queues: Log | None = None
    dead_letters: DeadLetters | None = None
    committed: CommittedStates | CommittedAt | None = None


IN_MEMORY = Outgoing()
"""Nothing survives the process."""
