"""What became of every record: counts per outcome, signal, tenant, component and reason.

The law the counts obey, per tenant and signal::

    received + derived = delivered + dropped + quarantined + throttled + in flight

*derived* are records telflow made itself (metrics aggregated from spans, records read back from an archive, and the
second and further copies of a record that a flow sends to several sinks).
"""

from __future__ import annotations

import enum
import math
import threading
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from telflow.batch import TelemetryBatch
from telflow.schema import Signal

__all__ = [
    "LEDGER",
    "OTHER_TENANTS",
    "Balance",
    "Ledger",
    "LedgerRow",
    "Outcome",
    "count_by_tenant",
    "share_out",
    "split_by_tenant",
]

OTHER_TENANTS = "_other"
"""Under this name the ledger counts the tenants that are too many to be counted apart."""


class Outcome(enum.StrEnum):
    """What happened to a record; the first two bring it in, the others end its way."""

    RECEIVED = "received"
    DERIVED = "derived"
    DELIVERED = "delivered"
    DROPPED = "dropped"
    QUARANTINED = "quarantined"
    THROTTLED = "throttled"


@dataclass(frozen=True, slots=True, order=True)
class LedgerRow:
    """One count of the ledger.

    Attributes:
        outcome: What happened.
        signal: To records of which signal.
        tenant: Whose; an empty string when the owner is unknown.
        component: Which source, operator or sink says so, by its step id.
        reason: Why, in a fixed word or two (`retries exhausted`), never with data in it; empty when it goes well.
        count: How many records.
    """

    outcome: Outcome
    signal: Signal
    tenant: str
    component: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class Balance:
    """The sums of one tenant and signal.

    >>> Balance(received=10, delivered=7, dropped=1).in_flight
    2
    """

    received: int = 0
    derived: int = 0
    delivered: int = 0
    dropped: int = 0
    quarantined: int = 0
    throttled: int = 0

    @property
    def in_flight(self) -> int:
        """Records that came in and have not ended their way yet; below zero means that one was counted twice."""
        return self.received + self.derived - self.delivered - self.dropped - self.quarantined - self.throttled


class Ledger:
    """Thread-safe record counts, cheap enough for every batch.

    A tenant's name may come from a request's header, so their number has a bound: the first `max_tenants` are counted
    apart, all later ones together as `OTHER_TENANTS`. Which a tenant is among never changes, so the counts of each name
    still obey the law.

    >>> ledger = Ledger()
    >>> ledger.add(Outcome.RECEIVED, Signal.TRACES, "acme", 512, component="otlp")
    >>> ledger.add(Outcome.DROPPED, Signal.TRACES, "acme", 2, component="export", reason="refused")
    >>> ledger.balance()["acme", Signal.TRACES].in_flight
    510
    >>> few = Ledger(max_tenants=1)
    >>> for tenant in ("acme", "beta", "gamma", "acme"):
    ...     few.add(Outcome.RECEIVED, Signal.LOGS, tenant, 1, component="otlp")
    >>> [(row.tenant, row.count) for row in few.rows()]
    [('_other', 2), ('acme', 2)]
    """

    def __init__(self, *, max_tenants: int = 1000) -> None:
        """Begin.

        Args:
            max_tenants: How many tenants are counted apart; records without a tenant always are. The attribute may be
                changed until there are more.
        """
        self.max_tenants = max_tenants
        self._apart: set[str] = {""}
        self._full = False
        self._lock = threading.Lock()
        self._counts: dict[tuple[Outcome, Signal, str, str, str], int] = {}

    def add(
        self, outcome: Outcome, signal: Signal, tenant: str | None, count: int, *, component: str, reason: str = ""
    ) -> None:
        """Add `count` records; zero adds nothing.

        Raises:
            ValueError: `count` is negative: what happened cannot be taken back.
        """
        if count < 0:
            raise ValueError(f"ledger: expected a count of at least 0, got {count} ({outcome}, {component})")
        if not count:
            return
        with self._lock:
            key = (outcome, signal, self._counted_as(tenant or ""), component, reason)
            self._counts[key] = self._counts.get(key, 0) + count

    def _counted_as(self, tenant: str) -> str:
        if tenant in self._apart:
            return tenant
        if self._full or len(self._apart) > self.max_tenants:
            self._full = True  # for good: one who was counted among the others must stay there
            return OTHER_TENANTS
        self._apart.add(tenant)
        return tenant

    def add_batch(self, outcome: Outcome, batch: TelemetryBatch, *, component: str, reason: str = "") -> None:
        """Add every record of `batch` under the tenant its resource belongs to."""
        for tenant, count in count_by_tenant(batch).items():
            self.add(outcome, batch.signal, tenant, count, component=component, reason=reason)

    def rows(self) -> tuple[LedgerRow, ...]:
        """Return all counts, in a stable order."""
        with self._lock:
            counts = list(self._counts.items())
        return tuple(sorted(LedgerRow(*key, count) for key, count in counts))

    def balance(self) -> dict[tuple[str, Signal], Balance]:
        """Return the sums by (tenant, signal)."""
        sums: dict[tuple[str, Signal], dict[str, int]] = {}
        for row in self.rows():
            of_outcome = sums.setdefault((row.tenant, row.signal), {})
            of_outcome[row.outcome] = of_outcome.get(row.outcome, 0) + row.count
        return {key: Balance(**of_outcome) for key, of_outcome in sums.items()}


def count_by_tenant(batch: TelemetryBatch) -> dict[str, int]:
    """Return how many records of `batch` belong to each tenant; an unknown owner is the empty string.

    A batch of one tenant, the usual case, costs a look at its few resources; another one histogram of `resource`.

    >>> count_by_tenant(TelemetryBatch.empty(Signal.LOGS))
    {}
    """
    if not batch.num_rows:
        return {}
    tenants = batch.resources["tenant"].dictionary_encode(null_encoding="encode")
    names = [name or "" for name in tenants.dictionary.to_pylist()]
    if len(names) == 1:
        return {names[0]: batch.num_rows}
    per_resource = np.bincount(batch.records["resource"].to_numpy(), minlength=len(tenants))
    codes = pc.fill_null(tenants.indices, 0).to_numpy()
    per_tenant = np.bincount(codes, weights=per_resource, minlength=len(names)).astype(np.int64)
    counts: dict[str, int] = {}
    for name, count in zip(names, per_tenant.tolist(), strict=True):
        if count:
            counts[name] = counts.get(name, 0) + count
    return counts


def split_by_tenant(batch: TelemetryBatch) -> list[tuple[str, TelemetryBatch]]:
    """Return (tenant, its records) for each tenant of `batch`, in order; an unknown owner is the empty string.

    >>> split_by_tenant(TelemetryBatch.empty(Signal.LOGS))
    []
    """
    tenants = list(count_by_tenant(batch))
    if len(tenants) == 1:
        return [(tenants[0], batch)]
    owners = pc.fill_null(batch.tenants(), "")
    return [(tenant, batch.filter(pc.equal(owners, tenant))) for tenant in tenants]


def share_out(owned: dict[str, int], count: int) -> dict[str, int]:
    """Spread `count` of some tenants' records over these tenants, by their share of them.

    For a destination that says how many records of a request it rejected, but not whose. The sum is exact; with one
    tenant, so is its share.

    >>> share_out({"acme": 90, "beta": 10}, 5)
    {'acme': 5, 'beta': 0}
    """
    total = sum(owned.values())
    left = min(count, total)
    shares: dict[str, int] = {}
    for tenant, records in owned.items():
        shares[tenant] = min(left, math.ceil(left * records / total)) if total else 0
        left -= shares[tenant]
        total -= records
    return shares


LEDGER = Ledger()
"""The ledger of this process, which every component uses unless it is given another."""
