"""filter_records: what stays, what is counted, what an error says."""

from __future__ import annotations

from typing import Any

import bytewax.operators as op
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from operators import FilterSettings, filter_batch, filter_records
from telflow import Signal, TelemetryBatch
from telflow.accounting import Ledger, Outcome, count_by_tenant
from telflow.errors import BatchError, UserFunctionError
from tests.batches import batches, spans
from tests.causes import raises_inside
from tests.strategies import thorough

ACME = spans([{"n": i} for i in range(4)], tenant="acme")
GLOBEX = spans([{"n": 10}, {"n": 11}], tenant="globex", first=4)


def run(
    batches: list[TelemetryBatch], mask: Any, settings: FilterSettings | None = None, ledger: Ledger | None = None
) -> list[TelemetryBatch]:
    out: list[TelemetryBatch] = []
    flow = Dataflow("flow")
    up = op.input("in", flow, TestingSource(batches))
    op.output("out", filter_records("keep", up, mask, settings, ledger or Ledger()), TestingSink(out))
    run_main(flow)
    return out


@thorough(30)
@given(st.lists(batches(Signal.TRACES), min_size=1, max_size=3), st.data())
def test_kept_and_dropped_are_all(found: list[TelemetryBatch], data: st.DataObject) -> None:
    """For any batch of several tenants and any mask: what stays and what is counted make up what came."""
    batch = TelemetryBatch.concat(found)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(batch), max_size=len(batch))), np.bool_)
    result = filter_batch(batch, mask)
    assert result.kept == batch.filter(mask)
    assert result.dropped == count_by_tenant(batch.filter(~mask))


def test_a_mask_of_another_length_is_refused() -> None:
    """The kernel says what it expected."""
    with pytest.raises(BatchError, match="expected a mask of 4 booleans"):
        filter_batch(ACME, pa.array([True]))


def test_dropped_records_are_in_the_ledger() -> None:
    """The flow passes on what stays, leaves out empty batches, and counts the rest by tenant with its reason."""
    ledger, both = Ledger(), TelemetryBatch.concat([ACME, GLOBEX])
    out = run([both, GLOBEX], lambda b: pc.less(b.attribute("n"), 2), FilterSettings(reason="too large"), ledger)
    assert [batch.column("name").to_pylist() for batch in out] == [["span-0", "span-1"]]
    rows = [(row.outcome, row.tenant, row.count, row.component, row.reason) for row in ledger.rows()]
    assert rows == [
        (Outcome.DROPPED, "acme", 2, "flow.keep", "too large"),
        (Outcome.DROPPED, "globex", 4, "flow.keep", "too large"),
    ]


def test_other_signals_pass() -> None:
    """A condition on logs is not asked about spans."""
    nothing = FilterSettings(signals=frozenset({Signal.LOGS}))
    assert run([ACME], lambda _: pytest.fail("asked"), nothing) == [ACME]


@pytest.mark.parametrize(
    ("mask", "complaint"),
    [
        (lambda b: b.column("nam"), r"keep.*<lambda> raised BatchError: .*did you mean 'name'.*4 records of traces"),
        (lambda _: pa.array([True]), r"keep.*<lambda>: filter: expected a mask of 4 booleans, got 1 of bool"),
        (lambda _: True, r"keep.*<lambda>: filter: expected a mask of 4 booleans, got bool"),
    ],
)
def test_an_error_in_the_condition_names_step_and_function(mask: Any, complaint: str) -> None:
    """The flow stops with an error that a person can act on."""
    with raises_inside(UserFunctionError, match=complaint):
        run([ACME], mask)


def test_settings_are_checked() -> None:
    """No signals, no reason, an unknown key: refused."""
    wrong: dict[str, Any]
    for wrong in ({"signals": []}, {"reason": ""}, {"mask": "x"}):
        with pytest.raises(ValidationError):
            FilterSettings.model_validate(wrong)
