"""Functions over complete traces: what they are shown, and what they may answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from telflow.batch import TelemetryBatch
from telflow.errors import UserFunctionError
from telflow.sampling.functions import CompleteTraces, ask_function
from telflow.sampling.held_spans import HeldSpans
from tests.sampling import Row, rows_batch, trace_id_of

FIRST = [Row(trace=n, span=n) for n in (1, 2, 3, 1)]
SECOND = [Row(trace=n, span=10 + n, error=n == 2) for n in (2, 9)]


def complete(traces: int = 4) -> CompleteTraces:
    """Traces 1, 2 and 3 are number 2, 0 and 1; 9 is not asked about; number 3 has no spans here."""
    numbers = [np.array([2, 0, 1, 2]), np.array([0, -1])]
    held = [HeldSpans(rows_batch(rows)) for rows in (FIRST, SECOND)]
    parts = [(one, np.arange(len(of), dtype=np.uint32), of) for one, of in zip(held, numbers, strict=True)]
    return CompleteTraces(parts, traces)


def test_spans_come_trace_by_trace() -> None:
    """Only of the traces asked about, from all segments, and put together only once."""
    traces = complete()
    found = traces.spans()
    assert found is not None
    batch, numbers = found
    assert batch.records["trace_id"].to_pylist() == [trace_id_of(n) for n in (2, 2, 3, 1, 1)]
    assert numbers.tolist() == [0, 0, 1, 2, 2]
    assert traces.spans() is found


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: np.array([True, False, True]),
        lambda _: pa.array([True, None, True]),
        lambda _: pa.chunked_array([[True], [False, True]]),
        lambda batch: pc.not_equal(batch.records["trace_id"].cast(pa.binary()), pa.scalar(trace_id_of(3))),
    ],
)
def test_masks_of_traces_and_of_spans(answer: Any) -> None:
    """A trace is wanted when its boolean, or one of its spans', is true; one without spans is not."""
    assert complete().wanted("step", answer).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (None, "no array of booleans"),
        (np.ones((3, 1), bool), "no array of booleans"),
        (np.ones(3), "no array of booleans"),
        (np.ones(4, bool), "4 booleans"),
    ],
)
def test_other_answers_are_errors(answer: Any, got: str) -> None:
    """They say what was expected."""

    def odd(_: TelemetryBatch) -> Any:
        return answer

    with pytest.raises(UserFunctionError, match=f"odd: expected 3 booleans, .* or 5, .* got {got}"):
        complete().wanted("step", odd)


def test_without_spans_nobody_is_asked() -> None:
    """There is nothing to show."""
    empty = CompleteTraces([], 2)
    assert empty.spans() is None
    assert empty.wanted("step", lambda _: pytest.fail("asked")).tolist() == [False, False]


def test_a_function_that_fails_wants_everything(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is lost by a mistake in it, and the log says whose it is."""

    def broken(_: TelemetryBatch) -> Any:
        raise RuntimeError("no such column")

    assert ask_function("step", {"broken": broken}, "broken", complete()).tolist() == [True] * 4
    assert "no such column" in caplog.text
    assert "'step'" in caplog.text
