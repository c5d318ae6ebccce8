"""Opens what a gateway keeps on disk: the lock of its folder, its logs, and the intake over one of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from control.exit_codes import UnavailableError
from telflow.accounting import LEDGER, Ledger
from telflow.delivery.committed import CommittedStates
from telflow.delivery.committed_here import CommittedHere
from telflow.delivery.dead_letters import DeadLetters, DeadLetterSettings
from telflow.delivery.intake import MemoryIntake
from telflow.delivery.log import Durability, Log, LogError, LogFull
from telflow.delivery.log_file import lock_beside
from telflow.delivery.log_intake import LogIntake
from telflow.delivery.outgoing import IN_MEMORY, Outgoing
from telflow.delivery.storage import StorageSettings
from telflow.placement import FIRST

__all__ = ["DEAD_LETTERS", "INGEST", "QUEUES", "WORKER", "Storage", "place_folder", "place_folders"]

INGEST = "ingest.db"
"""The file of the ingest log in a storage folder."""
QUEUES = "queues.db"
"""The file of all sending queues."""
DEAD_LETTERS = "deadletter.db"
"""The file of the dead letters."""
WORKER = "worker-"
"""What the folders of further workers are named after."""


def place_folder(folder: Path, place: str) -> Path:
    """Return where a place's logs lie in the folder of a flow: in it for the first one, below it for others.

    >>> place_folder(Path("state"), "0"), place_folder(Path("state"), "1")
    (PosixPath('state'), PosixPath('state/worker-1'))
    """
    return folder if place == FIRST else folder / f"{WORKER}{place}"


def place_folders(folder: Path) -> list[Path]:
    """Return the folders of all places that a flow has had on this host, as far as there are any."""
    return [path for path in (folder, *sorted(folder.glob(f"{WORKER}*"))) if path.is_dir()]


class Storage:
    """The storage of one running flow; nobody else's while it is open.

    Attributes:
        intake: What receivers fill: over the ingest log, or in memory.
        recovery_dir: Where the engine keeps the flow's state; None: nowhere.
        outgoing: Where destinations keep what is not delivered yet.
        logs: The logs that are open, by what they are for: `ingest`, `queues`.
    """

    def __init__(
        self,
        settings: StorageSettings,
        flow_id: str,
        *,
        memory_bytes: int,
        retry_after_s: float,
        queue_bytes: int = 0,
        dead_letters: DeadLetterSettings | None = None,
        ledger: Ledger = LEDGER,
        place: str = FIRST,
        recovery_dir: Path | None = None,
        committed: CommittedHere | None = None,
        left_over: bool = False,
    ) -> None:
        """Open it.

        Args:
            settings: Where, and how durable.
            flow_id: Name of the flow.
            memory_bytes: What the intake may hold in memory.
            retry_after_s: When its senders are to come back.
            queue_bytes: What the sending queues may hold on disk together; 0: there are none.
            dead_letters: What is kept of what nobody takes; None: nothing.
            ledger: Where it counts.
            place: Which place of a cluster it is (`telflow.placement`).
            recovery_dir: Where the engine keeps the state of a cluster; None: where the settings say.
            committed: What is committed of the sinks of a cluster's worker; None: the recovery files say.
            left_over: It is emptied, and nothing received any more; it needs no dead letters of its own.

        Raises:
            UnavailableError: The folder or a file in it cannot be used; another process has it.
        """
        self._settings = settings
        self._folder = place_folder(settings.folder(flow_id), place)
        self._place = place
        self._committed = committed
        self._lock: int | None = None
        self.logs: dict[str, Log] = {}
        self._logs: list[Log | DeadLetters] = []
        self.recovery_dir = recovery_dir or settings.recovery_dir(flow_id)
        self.intake: MemoryIntake | LogIntake
        self.outgoing = IN_MEMORY
        if settings.recovery_dir(flow_id) is not None:
            self._lock = self._locked()
        try:
            if settings.durability == "memory":
                self.intake = MemoryIntake(memory_bytes, retry_after_s=retry_after_s)
            else:
                age = settings.max_age
                log = self.open_log(
                    INGEST, max_bytes=settings.max_bytes, max_age_s=None if age is None else age.total_seconds()
                )
                self.intake = LogIntake(log, max_bytes=memory_bytes, retry_after_s=retry_after_s, ledger=ledger)
                self.outgoing = self._open_outgoing(queue_bytes, None if left_over else dead_letters)
            if left_over:
                self.intake.close()
        except BaseException:
            self.close()
            raise

    @property
    def _durability(self) -> Durability:
        return Durability.FSYNC if self._settings.durability == "fsync" else Durability.OS

    @property
    def folder(self) -> Path:
        """The folder, whether anything is in it or not."""
        return self._folder

    def open_log(self, name: str, *, max_bytes: int, max_age_s: float | None = None) -> Log:
        """Open one of the folder's logs, as durable as the settings say; it is closed with the storage.

        Raises:
            UnavailableError: It cannot be used.
        """
        with _usable():
            log = Log(
                self._folder / name,
                durability=self._durability,
                max_bytes=max_bytes,
                min_free_bytes=self._settings.min_free_bytes,
                max_age_s=max_age_s,
            )
        self._logs.append(log)
        self.logs[Path(name).stem] = log
        return log

    def _open_outgoing(self, queue_bytes: int, settings: DeadLetterSettings | None) -> Outgoing:
        queues = self.open_log(QUEUES, max_bytes=queue_bytes) if queue_bytes else None
        dead_letters = None
        if settings is not None:
            with _usable():
                dead_letters = DeadLetters(
                    self._folder / DEAD_LETTERS,
                    durability=self._durability,
                    max_bytes=settings.max_bytes,
                    min_free_bytes=self._settings.min_free_bytes,
                )
            self._logs.append(dead_letters)
        if self._committed is not None:
            return Outgoing(queues, dead_letters, self._committed.at(self._place))
        committed = None if self.recovery_dir is None else CommittedStates(self.recovery_dir)
        return Outgoing(queues, dead_letters, committed)

    def close(self) -> None:
        """Close the logs and let others have the folder; closing twice does nothing."""
        if self.outgoing.committed is not None:
            self.outgoing.committed.close()
        while self._logs:
            self._logs.pop().close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _locked(self) -> int:
        try:
            return lock_beside(self._folder / "storage")
        except LogError as error:
            raise UnavailableError(f"storage.dir: {error}") from error


@contextlib.contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except (LogError, LogFull) as error:
        raise UnavailableError(f"storage: {error}") from error
