"""The check of the accounts: received + derived = delivered + dropped + quarantined + throttled + in flight.

What is in flight follows from the other counts, so it is compared with what can be counted in another way: it is never
below zero, and when nothing has moved for a while it is no more than what waits in known places.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from telflow.accounting import Balance, Ledger
from telflow.schema import Signal

__all__ = ["AccountCheck", "AccountState"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AccountState:
    """The accounts at a moment.

    Attributes:
        balances: Sums by tenant and signal.
        overdrawn: Records counted out more often than in, by tenant and signal; none when all is well.
        unexplained: Records in flight that nothing holds, in a quiet moment; 0 when all is well or it is not quiet.
    """

    balances: dict[tuple[str, Signal], Balance]
    overdrawn: dict[tuple[str, Signal], int]
    unexplained: int

    @property
    def balanced(self) -> bool:
        """True when nothing is wrong."""
        return not self.overdrawn and not self.unexplained


class AccountCheck:
    """Checks a ledger, as often as it is asked to; says in the log when something becomes wrong, and when it is over.

    >>> check = AccountCheck(Ledger(), is_holding=lambda: False)
    >>> check.look().balanced
    True
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        is_holding: Callable[[], bool],
        quiet_s: float = 30.0,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            ledger: The counts.
            is_holding: Whether records wait anywhere for good reason: in the intake, in a sending queue.
            quiet_s: The ledger must not have changed for so long before records in flight must be explained; longer
                than a batch may wait in the flow.
            now_s: A monotonic clock.
        """
        self._ledger = ledger
        self._is_holding = is_holding
        self._quiet_s = quiet_s
        self._now_s = now_s
        self._lock = threading.Lock()
        self._before: dict[tuple[str, Signal], Balance] = {}
        self._moved_s = now_s()
        self._was_balanced = True

    def look(self) -> AccountState:
        """Check now; safe in any thread."""
        with self._lock:
            balances = self._ledger.balance()
            now_s = self._now_s()
            holding = self._is_holding()
            if balances != self._before or holding:
                self._before, self._moved_s = balances, now_s
            overdrawn = {key: -balance.in_flight for key, balance in balances.items() if balance.in_flight < 0}
            quiet = now_s - self._moved_s >= self._quiet_s
            unexplained = sum(max(0, balance.in_flight) for balance in balances.values()) if quiet else 0
            state = AccountState(balances, overdrawn, unexplained)
            if state.balanced != self._was_balanced:
                self._was_balanced = state.balanced
                self._say(state)
            return state

    def _say(self, state: AccountState) -> None:
        if state.balanced:
            _LOG.warning("the accounts agree again")
            return
        for (tenant, signal), count in sorted(state.overdrawn.items()):
            _LOG.error(
                "the accounts do not agree: %d %s records of tenant %r were counted out more often than in",
                count,
                signal,
                tenant,
            )
        if state.unexplained:
            _LOG.error(
                "the accounts do not agree: %d records are in flight though nothing holds any; please report it",
                state.unexplained,
            )
