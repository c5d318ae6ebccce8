"""The ledger as tables: what became of every record, and why some were lost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from control.screen import table
from telflow.accounting import Balance, Ledger, Outcome

__all__ = ["account", "accounting_table", "loss_table", "losses", "merged_accounts", "merged_losses", "totals"]

_COLUMNS = ("received", "derived", "delivered", "dropped", "quarantined", "throttled", "in_flight")
_LOSS_COLUMNS = ("outcome", "step", "reason", "signal", "tenant")
_LOSSES = (Outcome.DROPPED, Outcome.QUARANTINED, Outcome.THROTTLED)


def account(ledger: Ledger) -> list[dict[str, Any]]:
    """Return a row per tenant and signal: received + derived = delivered + dropped + … + in flight."""
    return [
        {"tenant": tenant, "signal": signal.value, **{name: getattr(balance, name) for name in _COLUMNS}}
        for (tenant, signal), balance in sorted(ledger.balance().items())
    ]


def merged_accounts(accounts: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows of several processes' `account` as one: of each tenant and signal the sums."""
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    for row in (row for rows in accounts for row in rows):
        own = sums.setdefault((row["tenant"], row["signal"]), {**row, **dict.fromkeys(_COLUMNS, 0)})
        for name in _COLUMNS:
            own[name] += row[name]
    return [sums[key] for key in sorted(sums)]


def totals(ledger: Ledger) -> Balance:
    """Return the sums over all tenants and signals."""
    balances = ledger.balance().values()
    return Balance(**{name: sum(getattr(b, name) for b in balances) for name in _COLUMNS if name != "in_flight"})


def accounting_table(rows: list[dict[str, Any]]) -> Table:
    """Return the rows of `account` as a table; columns in which nothing happened are left out."""
    shown = [name for name in _COLUMNS if name in ("received", "delivered", "in_flight") or any(r[name] for r in rows)]
    made = table("tenant", "signal", *(f"#{name.replace('_', ' ')}" for name in shown), title="Records")
    for row in rows:
        made.add_row(row["tenant"] or "-", row["signal"], *(f"{row[name]:,}" for name in shown))
    return made


def losses(ledger: Ledger) -> list[dict[str, Any]]:
    """Return which step dropped, quarantined or throttled records, and why."""
    return [
        {
            "outcome": row.outcome.value,
            "step": row.component,
            "reason": row.reason,
            "signal": row.signal.value,
            "tenant": row.tenant,
            "records": row.count,
        }
        for row in ledger.rows()
        if row.outcome in _LOSSES
    ]


def merged_losses(parts: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows of several processes' `losses` as one, sums of those that differ in nothing else."""
    sums: dict[tuple[str, ...], int] = {}
    for row in (row for rows in parts for row in rows):
        key = tuple(row[name] for name in _LOSS_COLUMNS)
        sums[key] = sums.get(key, 0) + row["records"]
    return [{**dict(zip(_LOSS_COLUMNS, key, strict=True)), "records": sums[key]} for key in sorted(sums)]


def loss_table(rows: list[dict[str, Any]]) -> Table | None:
    """Return the rows of `losses` as a table; None when there are none."""
    if not rows:
        return None
    made = table(*_LOSS_COLUMNS, "#records", title="Not delivered")
    for row in rows:
        shown = {**row, "tenant": row["tenant"] or "-"}
        made.add_row(*(shown[name] for name in _LOSS_COLUMNS), f"{row['records']:,}")
    return made
