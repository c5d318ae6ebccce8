"""map_batches: a user's function over telflow, pyarrow or polars, and what becomes of its mistakes."""

from __future__ import annotations

import logging
from typing import Any

import bytewax.operators as op
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

from operators import lift_arrow, lift_polars, map_batches, map_batches_or_quarantine
from telflow import Signal, TelemetryBatch
from telflow.accounting import Ledger
from telflow.errors import UserFunctionError
from tests.batches import spans
from tests.causes import raises_inside

ACME = spans([{"n": 0}, {"n": 1}], tenant="acme")
GLOBEX = spans([{"n": 2}], tenant="globex", first=2)
BOTH = TelemetryBatch.concat([ACME, GLOBEX])


def run(function: Any, batches: list[TelemetryBatch], ledger: Ledger | None = None) -> list[TelemetryBatch]:
    out: list[TelemetryBatch] = []
    flow = Dataflow("flow")
    up = op.input("in", flow, TestingSource(batches))
    op.output("out", map_batches("mine", up, function, ledger or Ledger()), TestingSink(out))
    run_main(flow)
    return out


def counts(ledger: Ledger) -> list[tuple[str, str, str, int]]:
    return [(str(row.outcome), str(row.signal), row.tenant, row.count) for row in ledger.rows()]


def names(batches: list[TelemetryBatch]) -> list[list[str]]:
    return [batch.column("name").to_pylist() for batch in batches]


def slow_only(records: pa.RecordBatch) -> pa.BooleanArray:
    return pc.greater(pc.subtract(records["end_time_unix_nano"], records["start_time_unix_nano"]), 0)


def test_a_function_over_batches() -> None:
    """What it returns goes on."""
    out = run(lambda batch: batch.with_attributes("record", {"seen": True}), [ACME])
    assert out[0].attribute("seen").to_pylist() == [True, True]


@pytest.mark.parametrize(
    "function",
    [
        lift_arrow(slow_only),
        lift_arrow(lambda records: records.filter(slow_only(records))),
        lift_polars(lambda frame: frame.filter(pl.col("end_time_unix_nano") > pl.col("start_time_unix_nano"))),
    ],
)
def test_a_lifted_function_over_records(function: Any) -> None:
    """A pyarrow mask, pyarrow records and a polars frame all do the same, and keep each record's resource."""
    out = run(function, [BOTH])
    assert names(out) == [["span-1", "span-2"]]
    assert out[0].tenants().to_pylist() == ["acme", "globex"]


def test_what_is_left_out_or_added_is_accounted_for() -> None:
    """By tenant and signal; a batch left without records is not passed on."""
    ledger = Ledger()
    assert run(lambda batch: batch.slice(0, 0), [ACME], ledger) == []
    assert counts(ledger) == [("dropped", "traces", "acme", 2)]
    ledger = Ledger()
    run(lambda batch: TelemetryBatch.concat([batch, batch]), [GLOBEX], ledger)
    assert counts(ledger) == [("derived", "traces", "globex", 1)]
    ledger = Ledger()
    run(lambda batch: batch.with_tenant("acme"), [GLOBEX], ledger)
    assert counts(ledger) == [("derived", "traces", "acme", 1), ("dropped", "traces", "globex", 1)]
    ledger = Ledger()
    run(lambda batch: batch, [BOTH], ledger)
    assert counts(ledger) == []


def test_a_function_may_change_the_signal() -> None:
    """Spans in, something else out: both sides are counted."""
    ledger = Ledger()
    assert run(lambda _: TelemetryBatch.empty(Signal.LOGS), [ACME], ledger) == []
    assert counts(ledger) == [("dropped", "traces", "acme", 2)]


def raises(_: TelemetryBatch) -> TelemetryBatch:
    raise KeyError("user")


wrong_type: Any = lambda frame: frame["name"]  # noqa: E731 - as a user would write it
WRONG: list[tuple[Any, str]] = [
    (raises, r"step 'flow.mine': function raises raised KeyError: 'user' \(on 2 records of traces\)"),
    (lambda _: None, r"mine.*expected it to return a TelemetryBatch, got NoneType; to leave out all records return"),
    (lambda batch: batch.records, r"mine.*expected it to return a TelemetryBatch, got RecordBatch$"),
    (lift_arrow(lambda records: records.select(["name"])), r"mine.*<lambda> raised BatchError: records: column 0"),
    (lift_arrow(lambda _: pa.array([True])), r"mine.*<lambda> raised BatchError: filter: expected a mask of 2"),
    (lift_polars(wrong_type), r"mine.*expected it to return a polars DataFrame, got Series"),
    (lift_polars(lambda frame: frame.select("name")), r"mine.*raised BatchError: .*expected the columns of to_polars"),
]


@pytest.mark.parametrize(("function", "complaint"), WRONG)
def test_a_mistake_stops_the_flow_and_is_named(function: Any, complaint: str) -> None:
    """Step, function, what was expected, and on what data; never the data itself."""
    with raises_inside(UserFunctionError, match=complaint):
        run(function, [ACME])


def test_what_the_function_fails_on_can_go_another_way(caplog: pytest.LogCaptureFixture) -> None:
    """The flow goes on; the failed batch is whole on the other stream, counted, and the first failure logged."""
    ledger = Ledger()
    mapped: list[TelemetryBatch] = []
    quarantined: list[TelemetryBatch] = []

    def only_globex(batch: TelemetryBatch) -> TelemetryBatch:
        if "acme" in batch.tenants().to_pylist():
            raise ValueError("not for acme")
        return batch.slice(0, 0) if batch.num_rows == 2 else batch

    flow = Dataflow("flow")
    up = op.input("in", flow, TestingSource([ACME, GLOBEX, BOTH, TelemetryBatch.concat([GLOBEX, GLOBEX])]))
    out = map_batches_or_quarantine("mine", up, only_globex, ledger)
    op.output("mapped", out.mapped, TestingSink(mapped))
    op.output("quarantined", out.quarantined, TestingSink(quarantined))
    with caplog.at_level(logging.ERROR):
        run_main(flow)
    assert mapped == [GLOBEX]
    assert quarantined == [ACME, BOTH]
    assert counts(ledger) == [
        ("dropped", "traces", "globex", 2),
        ("quarantined", "traces", "acme", 4),
        ("quarantined", "traces", "globex", 1),
    ]
    assert [row.reason for row in ledger.rows()] == ["left out by function", "function failed", "function failed"]
    assert len(caplog.records) == 1
    assert "not for acme" in caplog.text
