"""The ledger: counts add up, per tenant, from any number of threads."""

from __future__ import annotations

import threading

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telflow import Signal, TelemetryBatch
from telflow.accounting import LEDGER, OTHER_TENANTS, Balance, Ledger, LedgerRow, Outcome, count_by_tenant
from telflow.schema import RECORD_SCHEMAS, RESOURCES, SCOPES
from tests.oracle import Row


def _batch(owners: list[str | None], resource_of_record: list[int]) -> TelemetryBatch:
    """Logs whose resources belong to `owners`."""
    resources: list[Row] = [
        {"tenant": o, "attributes": None, "dropped_attributes_count": 0, "entity_refs": [], "schema_url": ""}
        for o in owners
    ]
    scope: Row = {"name": None, "version": "", "attributes": [], "dropped_attributes_count": 0, "schema_url": ""}
    schema = RECORD_SCHEMAS[Signal.LOGS]
    blank: Row = {
        f.name: None if f.nullable else "" if pa.types.is_string(f.type) else [] if pa.types.is_list(f.type) else 0
        for f in schema
    }
    records = [{**blank, "resource": r} for r in resource_of_record]
    return TelemetryBatch(
        Signal.LOGS,
        pa.RecordBatch.from_pylist(records, schema=schema),
        pa.RecordBatch.from_pylist(resources, schema=RESOURCES),
        pa.RecordBatch.from_pylist([scope], schema=SCOPES),
    )


def test_balance_closes_when_every_record_ended_its_way() -> None:
    """Received + derived = delivered + dropped + quarantined + throttled leaves nothing in flight."""
    ledger = Ledger()
    for outcome, count in zip(Outcome, (90, 10, 60, 20, 15, 5), strict=True):
        ledger.add(outcome, Signal.TRACES, "acme", count, component="step")
    assert ledger.balance() == {("acme", Signal.TRACES): Balance(90, 10, 60, 20, 15, 5)}
    assert ledger.balance()["acme", Signal.TRACES].in_flight == 0


def test_signals_tenants_components_and_reasons_are_kept_apart() -> None:
    """Equal keys add up, different ones stay separate rows in a stable order."""
    ledger = Ledger()
    ledger.add(Outcome.DROPPED, Signal.LOGS, "b", 1, component="sink", reason="refused")
    ledger.add(Outcome.DROPPED, Signal.LOGS, "a", 1, component="sink", reason="retries exhausted")
    ledger.add(Outcome.DROPPED, Signal.LOGS, "a", 2, component="sink", reason="refused")
    ledger.add(Outcome.DROPPED, Signal.LOGS, "a", 3, component="sink", reason="refused")
    assert ledger.rows() == (
        LedgerRow(Outcome.DROPPED, Signal.LOGS, "a", "sink", "refused", 5),
        LedgerRow(Outcome.DROPPED, Signal.LOGS, "a", "sink", "retries exhausted", 1),
        LedgerRow(Outcome.DROPPED, Signal.LOGS, "b", "sink", "refused", 1),
    )


def test_zero_leaves_no_row_and_a_negative_count_is_refused() -> None:
    """Nothing that happened can be taken back."""
    ledger = Ledger()
    ledger.add(Outcome.RECEIVED, Signal.LOGS, None, 0, component="x")
    assert ledger.rows() == ()
    with pytest.raises(ValueError, match="at least 0, got -1"):
        ledger.add(Outcome.RECEIVED, Signal.LOGS, None, -1, component="x")


@pytest.mark.parametrize(
    ("owners", "resource_of_record", "expected"),
    [
        ([], [], {}),
        ([None], [0, 0], {"": 2}),
        (["acme", "acme"], [0, 1, 1], {"acme": 3}),
        (["acme", "beta", None, "acme"], [0, 1, 1, 2, 3, 3, 3], {"acme": 4, "beta": 2, "": 1}),
        (["acme", "unused"], [0, 0], {"acme": 2}),
        (["", None], [0, 1], {"": 2}),
    ],
)
def test_a_batch_is_counted_per_tenant(
    owners: list[str | None], resource_of_record: list[int], expected: dict[str, int]
) -> None:
    """Each record counts for the tenant of its resource; resources without records count nothing."""
    batch = _batch(owners, resource_of_record)
    assert count_by_tenant(batch) == expected
    ledger = Ledger()
    ledger.add_batch(Outcome.RECEIVED, batch, component="otlp")
    assert {row.tenant: row.count for row in ledger.rows()} == expected


def test_concurrent_additions_are_not_lost() -> None:
    """Four threads adding to one key leave the exact sum."""
    ledger = Ledger()

    def add() -> None:
        for _ in range(2000):
            ledger.add(Outcome.RECEIVED, Signal.LOGS, "acme", 1, component="otlp")

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.count for row in ledger.rows()] == [8000]


def test_the_process_has_a_ledger() -> None:
    """Components that are given no ledger share one."""
    assert isinstance(LEDGER, Ledger)


@settings(deadline=None)
@given(
    moves=st.lists(st.tuples(st.sampled_from(list(Outcome)), st.integers(0, 30), st.integers(1, 5)), max_size=200),
    most=st.integers(1, 8),
)
def test_the_law_holds_for_the_tenants_counted_together(moves: list[tuple[Outcome, int, int]], most: int) -> None:
    """Whatever comes in whatever order: the first tenants as they would be alone, the others' sums under one name."""
    exact, bounded = Ledger(max_tenants=1000), Ledger(max_tenants=most)
    first: list[str] = []
    for outcome, number, count in moves:
        tenant = f"tenant-{number}"
        if tenant not in first:
            first.append(tenant)
        for ledger in (exact, bounded):
            ledger.add(outcome, Signal.LOGS, tenant, count, component="step")
    apart = set(first[:most])
    wanted: dict[str, dict[str, int]] = {}
    for (tenant, _), balance in exact.balance().items():
        sums = wanted.setdefault(tenant if tenant in apart else OTHER_TENANTS, {})
        for name in Outcome:
            sums[name] = sums.get(name, 0) + getattr(balance, name)
    assert {tenant: Balance(**sums) for tenant, sums in wanted.items()} == {
        tenant: balance for (tenant, _), balance in bounded.balance().items()
    }


def test_records_without_a_tenant_take_no_tenants_place() -> None:
    """They are counted apart, however many tenants there are."""
    ledger = Ledger(max_tenants=1)
    for tenant in ("a", "b", None, "a", ""):
        ledger.add(Outcome.RECEIVED, Signal.LOGS, tenant, 1, component="step")
    assert [(row.tenant, row.count) for row in ledger.rows()] == [("", 2), (OTHER_TENANTS, 1), ("a", 2)]


def test_one_who_was_counted_among_the_others_stays_there() -> None:
    """Also when the bound is raised later: else what came in under one name would go out under another."""
    ledger = Ledger(max_tenants=1)
    ledger.add(Outcome.RECEIVED, Signal.LOGS, "a", 1, component="step")
    ledger.add(Outcome.RECEIVED, Signal.LOGS, "b", 1, component="step")
    ledger.max_tenants = 1000
    ledger.add(Outcome.DELIVERED, Signal.LOGS, "b", 1, component="step")
    assert {tenant: balance.in_flight for (tenant, _), balance in ledger.balance().items()} == {
        "a": 1,
        OTHER_TENANTS: 0,
    }
