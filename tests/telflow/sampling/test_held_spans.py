"""Spans on hold against a dict of rows: what goes goes once, with its threshold, and the rest stays."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telflow.accounting import Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.errors import BatchError
from telflow.sampling.held_spans import NEVER_EARLY, NEVER_LATE, HeldSpans
from telflow.sampling.trace_state import NEVER
from tests.sampling import Row, kept_rows, rows_batch

EXAMPLES = int(os.environ.get("TELFLOW_HYPOTHESIS_EXAMPLES", "40"))
TENANTS = ["acme", "initech", None]
VERDICTS = {0: "", 1 << 55: "ot=th:8", NEVER: "not sampled", NEVER_EARLY: "not sampled, decided early"}
VERDICTS[NEVER_LATE] = "not sampled, late"


def rows_of(count: int) -> list[Row]:
    return [Row(trace=n, span=n, tenant=TENANTS[n % 3]) for n in range(count)]


def saved(held: HeldSpans) -> HeldSpans:
    return HeldSpans.from_state(pickle.loads(pickle.dumps(held.state())))  # noqa: S301 - our own


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.integers(1, 40),
    st.lists(st.tuples(st.sets(st.integers(0, 39)), st.sampled_from(sorted(VERDICTS)), st.booleans()), max_size=6),
)
def test_same_as_a_dict(count: int, rounds: list[tuple[set[int], int, bool]]) -> None:
    """Random parts, every verdict, saved and restored in between: each span comes out or is counted, once."""
    held, ledger, left = HeldSpans(rows_batch(rows_of(count))), Ledger(), set(range(count))
    dropped: dict[tuple[str, str], int] = {}
    for wanted, verdict, restart in rounds:
        going = sorted(wanted & left, reverse=True)  # in any order
        left -= set(going)
        out = held.release(np.array(going, np.uint32), np.full(len(going), verdict, np.uint64), "step", ledger)
        if verdict < NEVER and going:
            assert out is not None
            assert kept_rows([out]) == dict.fromkeys(sorted(going), VERDICTS[verdict])
        else:
            assert out is None
            for span in going:
                key = (TENANTS[span % 3] or "", VERDICTS[verdict])
                dropped[key] = dropped.get(key, 0) + 1
        if restart:
            held = saved(held)
        assert len(held) == len(left)
        some = sorted(left)[::2]
        assert list(kept_rows([held.take(np.array(some, np.uint32))])) == some
    assert {(r.tenant, r.reason): r.count for r in ledger.rows() if r.outcome is Outcome.DROPPED} == dropped


@pytest.mark.parametrize("rows", [[3], [40], [0, 3]])
@pytest.mark.parametrize("restart", [False, True])
def test_a_span_goes_only_once(rows: list[int], restart: bool) -> None:
    """Asking again, or for one that was never here, is an error, not a second copy."""
    held = HeldSpans(rows_batch(rows_of(8)))
    held.release(np.array([3, 4], np.uint32), np.zeros(2, np.uint64), "step", Ledger())
    held = saved(held) if restart else held
    with pytest.raises(BatchError, match="not held here"):
        held.release(np.array(rows, np.uint32), np.zeros(len(rows), np.uint64), "step", Ledger())


def test_a_state_holds_only_what_is_here() -> None:
    """Spans that went are nowhere in it; it is compressed, and made once until some go."""
    rows = [Row(trace=n, span=n, attributes={"text": f"secret {n} " + "x" * 500}) for n in range(400)]
    held = HeldSpans(rows_batch(rows))
    whole = held.state()
    assert held.state() is whole
    assert len(whole["spans"]) * 4 < rows_batch(rows).num_bytes
    held.release(np.arange(399, dtype=np.uint32), np.zeros(399, np.uint64), "step", Ledger())
    left = held.state()
    assert left["rows"].tolist() == [399]
    spans = TelemetryBatch.from_ipc_bytes(left["spans"])
    buffers = [buffer.to_pybytes() for buffer in spans.records["attributes"].buffers() if buffer is not None]
    assert [b"secret 399" in b"".join(buffers), b"secret 398" in b"".join(buffers)] == [True, False]


def test_state_of_another_version_is_refused() -> None:
    """With a hint what to do."""
    state = HeldSpans(rows_batch(rows_of(1))).state() | {"version": 7}
    with pytest.raises(BatchError, match="version 1, got 7: drain"):
        HeldSpans.from_state(state)
