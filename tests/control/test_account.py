"""The ledger as tables."""

from __future__ import annotations

from rich.console import Console

from control.account import account, accounting_table, loss_table, losses, merged_losses, totals
from telflow.accounting import Balance, Ledger, Outcome
from telflow.schema import Signal


def ledger() -> Ledger:
    made = Ledger()
    made.add(Outcome.RECEIVED, Signal.TRACES, "acme", 10, component="otlp")
    made.add(Outcome.DELIVERED, Signal.TRACES, "acme", 7, component="out")
    made.add(Outcome.DROPPED, Signal.TRACES, "acme", 1, component="out", reason="refused")
    made.add(Outcome.RECEIVED, Signal.LOGS, None, 2000, component="otlp")
    return made


def shown(part: object) -> str:
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(part)
    return capture.get()


def test_a_row_per_tenant_and_signal_adds_up() -> None:
    """Received + derived = the rest."""
    first, second = account(ledger())
    assert (first["tenant"], first["signal"], first["in_flight"]) == ("", "logs", 2000)
    assert (second["received"], second["delivered"], second["dropped"], second["in_flight"]) == (10, 7, 1, 2)
    assert totals(ledger()) == Balance(received=2010, delivered=7, dropped=1)


def test_the_table_leaves_out_what_did_not_happen() -> None:
    """No column of zeros for quarantine."""
    text = shown(accounting_table(account(ledger())))
    assert "dropped" in text
    assert "quarantined" not in text
    assert "2,000" in text
    assert shown(accounting_table([])).split() == [
        "Records",
        "tenant",
        "signal",
        "received",
        "delivered",
        "in",
        "flight",
    ]


def test_losses_are_named_with_step_and_reason() -> None:
    """And without any there is no table."""
    table = loss_table(losses(ledger()))
    assert "refused" in shown(table)
    assert loss_table(losses(Ledger())) is None


def test_losses_of_several_processes_are_one_table() -> None:
    """The same step, reason, signal and tenant: one row with the sum."""
    [one], [other] = losses(ledger()), losses(ledger())
    other["reason"] = "queue full"
    assert merged_losses([[one], [one, other], []]) == [other, {**one, "records": 2}]
