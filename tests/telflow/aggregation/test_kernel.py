"""The aggregation of a key: equal to a slow reference for every window, lateness, measure, cut and interruption."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow.aggregation import AggregateSettings, Aggregation
from telflow.aggregation.rows import partials_of
from telflow.batch import TelemetryBatch
from telflow.errors import BatchError
from telflow.schema import Signal
from telflow.window_logic import Update
from tests.aggregation_reference import Reference, assert_same, read
from tests.spans import EPOCH, SECOND, Span, spans_batch
from tests.strategies import thorough

NOW = EPOCH + 3600 * SECOND
MEASURES = {
    "spans": {"kind": "count"},
    "sized": {"kind": "count", "of": "size"},
    "per_second": {"kind": "rate"},
    "bytes_per_second": {"kind": "rate", "of": "size"},
    "total": {"kind": "sum", "of": "size"},
    "least": {"kind": "min", "of": "size"},
    "most": {"kind": "max", "of": "size"},
    "middle": {"kind": "mean", "of": "size"},
    "latest": {"kind": "last", "of": "size"},
    "took": {"kind": "histogram", "of": "duration_s", "bounds": [0.25, 1, 60]},
    "sizes": {"kind": "exponential_histogram", "of": "size", "max_size": 8},
    "quantiles": {"kind": "quantiles", "of": "size", "quantiles": [0, 0.5, 0.99, 1]},
    "users": {"kind": "distinct", "of": "user"},
}
WINDOWS = [
    {"kind": "tumbling", "length": "10s"},
    {"kind": "sliding", "length": "10s", "slide": "10s"},
    {"kind": "sliding", "length": "12s", "slide": "3s"},
    {"kind": "session", "gap": "4s"},
]


def settings(**options: Any) -> AggregateSettings:
    base = {"by": ["name", "region"], "measures": MEASURES, "window": "10s", "lateness": "5s", "max_ahead": "60s"}
    return AggregateSettings.model_validate({**base, **options})


_sizes = st.sampled_from([0, 1, -3, 2.5, 1024, 0.125, 1e6, -7.75, "big", float("nan")])
_spans = st.builds(
    Span,
    end=st.one_of(
        st.integers(0, 30).map(lambda s: EPOCH + s * SECOND),
        st.integers(0, 120 * SECOND).map(lambda n: EPOCH + n),
        st.just(NOW + 61 * SECOND),
    ),
    duration=st.sampled_from([0, SECOND // 4, SECOND // 2, SECOND, 64 * SECOND]),
    name=st.sampled_from(["a", "b"]),
    attributes=st.fixed_dictionaries(
        {}, optional={"size": _sizes, "user": st.integers(0, 20), "region": st.sampled_from(["eu", 7])}
    ),
    resource_attributes=st.sampled_from([{}, {"region": "us"}]),
)
_stream = st.lists(st.tuples(st.lists(_spans, max_size=14), st.sampled_from(["", "restart"])), max_size=6)
_options = st.fixed_dictionaries(
    {
        "window": st.sampled_from(WINDOWS),
        "lateness": st.sampled_from(["0s", "5s", "1m"]),
        "max_series": st.sampled_from([1, 3, 10_000]),
    }
)


def _without_nan(spans: list[Span]) -> list[Span]:
    """As the reference sees them: NaN is there, but no number."""
    return [
        Span(**{**vars(s), "attributes": {k: "NaN" if v != v else v for k, v in s.attributes.items()}})  # noqa: PLR0124
        for s in spans
    ]


@pytest.mark.parametrize("way", ["batches", "partials", "partials over the wire"])
@thorough(25)
@given(options=_options, stream=_stream)
def test_equal_to_the_reference(way: str, options: dict[str, Any], stream: list[tuple[list[Span], str]]) -> None:
    """Every result is that of counting row by row, whole or in parts, interrupted and resumed in between."""
    chosen = settings(**options)
    reference, kernel = Reference(chosen, NOW), Aggregation(chosen)
    rows: list[pa.RecordBatch] = []
    late = ahead = 0
    for spans, interrupt in stream:
        reference.add(_without_nan(spans))
        updates = []
        if way == "batches":
            updates.append(kernel.add(spans_batch(spans), NOW))
        else:
            partials, refused = partials_of(spans_batch(spans), chosen, NOW)
            late += sum(r.count for r in refused if r.reason == "late")
            ahead += sum(r.count for r in refused if r.reason == "ahead of clock")
            for key, partial in partials:
                assert key == "acme"
                crossed = pickle.loads(pickle.dumps(partial)) if "wire" in way else partial  # noqa: S301
                updates.append(kernel.add(crossed, NOW))
        for update in updates:
            rows += update.rows
            late += (update.late.num_rows if update.late else 0) + sum(r.count for r in update.refused)
            ahead += update.ahead.num_rows if update.ahead else 0
        if interrupt:
            state = pickle.loads(pickle.dumps(kernel.state()))  # noqa: S301
            kernel = Aggregation(chosen)
            assert kernel.restore(state) == Update()
    rows += kernel.flush().rows
    reference.finish()
    assert (late, ahead) == (reference.late, reference.ahead)
    assert_same(read(rows, chosen), reference.results(reference.final))


@pytest.mark.parametrize("way", ["batches", "partials"])
@thorough(25)
@given(
    window=st.sampled_from(WINDOWS[:3]),
    lateness=st.sampled_from(["0s", "5s"]),
    stream=st.lists(st.lists(_spans), max_size=6),
)
def test_corrections_count_what_came_late(
    way: str, window: dict[str, Any], lateness: str, stream: list[list[Span]]
) -> None:
    """The first result holds what came in time, the last correction all that came within the time for corrections."""
    chosen = settings(window=window, lateness=lateness, late="correct", correct_for="20s")
    reference, kernel = Reference(chosen, NOW), Aggregation(chosen)
    rows: list[pa.RecordBatch] = []
    late = 0
    for spans in stream:
        reference.add(_without_nan(spans))
        items: list[Any] = [spans_batch(spans)]
        if way == "partials":
            partials, refused = partials_of(spans_batch(spans), chosen, NOW)
            items = [pickle.loads(pickle.dumps(partial)) for _, partial in partials]  # noqa: S301
            late += sum(r.count for r in refused if r.reason == "late")
        for item in items:
            update = kernel.add(item, NOW)
            rows += update.rows
            late += (update.late.num_rows if update.late else 0) + sum(r.count for r in update.refused)
    rows += kernel.flush().rows
    assert late == reference.late
    final = read(rows, chosen)
    assert_same(final, reference.results(reference.final))
    corrected = reference.results(reference.corrected)
    corrections = read(rows, chosen, "correction")
    assert_same(final | corrections, corrected)


def test_early_results_come_before_the_window_closes() -> None:
    """Each time event time has come a bit further, the open windows as they are; the final result follows."""
    kernel = Aggregation(settings(early="2s", measures={"n": {"kind": "count"}}, by=[]))
    told = []
    for second in (0, 1, 2, 3, 9, 16):
        update = kernel.add(spans_batch([Span(EPOCH + second * SECOND)]), NOW)
        told.append([(row["kind"], row["n"]) for table in update.rows for row in table.to_pylist()])
    assert told == [[("early", 1)], [], [("early", 3)], [], [("early", 5)], [("final", 5), ("early", 1)]]


def test_early_results_of_sessions() -> None:
    """An open session is told with what it has."""
    kernel = Aggregation(settings(early="2s", measures={"n": {"kind": "count"}}, by=[], window=WINDOWS[3]))
    (table,) = kernel.add(spans_batch([Span(EPOCH), Span(EPOCH + SECOND)]), NOW).rows
    (row,) = table.to_pylist()
    assert (row["kind"], row["n"], row["window_end_unix_nano"]) == ("early", 2, EPOCH + 5 * SECOND)


def test_a_tenant_with_a_million_series_is_bounded() -> None:
    """Its series beyond the limit are one overflow series; what is counted stays whole."""
    kernel = Aggregation(settings(by=["name"], measures={"n": {"kind": "count"}}, max_series=100))
    for start in range(0, 5000, 500):
        kernel.add(spans_batch([Span(EPOCH, name=f"n{i}") for i in range(start, start + 500)]), NOW)
    (table,) = kernel.flush().rows
    over = [row for row in table.to_pylist() if row["overflow"]]
    assert table.num_rows == 101
    assert [(row["name"], row["n"]) for row in over] == [(None, 4900)]


def test_idle_series_are_forgotten() -> None:
    """Their place in the limit is free again."""
    kernel = Aggregation(settings(by=["name"], measures={"n": {"kind": "count"}}, max_series=1, series_expiry="10s"))
    rows = [*kernel.add(spans_batch([Span(EPOCH, name="a")]), NOW).rows]
    for second in range(20, 80, 10):
        rows += kernel.add(spans_batch([Span(EPOCH + second * SECOND, name="b")]), NOW).rows
    named = [row["name"] for table in rows for row in table.to_pylist()]
    assert named[:2] == ["a", None]
    assert named[-1] == "b"


def test_cumulative_results_cover_all_since_the_series_began() -> None:
    """And repeat what had no records."""
    kernel = Aggregation(settings(by=["name"], measures={"n": {"kind": "count"}}, temporality="cumulative"))
    spans = [Span(EPOCH, name="a"), Span(EPOCH + 10 * SECOND, name="b"), Span(EPOCH + 20 * SECOND, name="a")]
    rows = [*kernel.add(spans_batch(spans), NOW).rows, *kernel.flush().rows]
    told = [[(row["name"], row["n"]) for row in table.to_pylist()] for table in rows]
    assert told == [[("a", 1)], [("a", 1), ("b", 1)], [("a", 2), ("b", 1)]]


def test_the_state_is_plain_data() -> None:
    """Numbers, text, bytes, lists, dicts and numpy arrays: a snapshot outlives the classes of this version."""
    for window in WINDOWS:
        kernel = Aggregation(settings(window=window))
        kernel.add(spans_batch([Span(EPOCH, attributes={"size": 2, "user": 1})]), NOW)
        text = json.dumps(kernel.state(), default=lambda v: v.tolist() if type(v).__module__ == "numpy" else v.hex())
        assert json.loads(text)["version"] == 1


def test_a_state_of_another_version_is_refused() -> None:
    """It says so, and what to do."""
    with pytest.raises(BatchError, match="expected version 1, got 7; resume with"):
        Aggregation(settings()).restore({"version": 7})


def test_windows_of_changed_options_come_out_first() -> None:
    """After a restart with another window the old ones leave under their own options."""
    kernel = Aggregation(settings())
    kernel.add(spans_batch([Span(EPOCH)]), NOW)
    other = Aggregation(settings(window="20s"))
    (table,) = other.restore(kernel.state()).rows
    (row,) = table.to_pylist()
    assert row["window_end_unix_nano"] - row["window_start_unix_nano"] == 10 * SECOND
    assert other.flush().rows == ()


def test_silence_lets_the_system_clock_close_windows() -> None:
    """Only after the idle time; never, if that is null."""
    for window in WINDOWS:
        kernel = Aggregation(settings(window=window))
        assert kernel.due_unix_nano() is None
        kernel.add(spans_batch([Span(EPOCH)]), NOW)
        due = kernel.due_unix_nano()
        assert due is not None
        assert due >= NOW + 10 * SECOND
        kernel.idle_since(NOW)
        assert kernel.advance(due).rows
    assert Aggregation(settings(idle_timeout=None)).due_unix_nano() is None


def test_other_signals_change_nothing() -> None:
    """Batches of signals not asked for pass by."""
    kernel = Aggregation(settings(signals=["logs"]))
    assert kernel.add(spans_batch([Span(EPOCH)]), NOW) == Update()
    assert kernel.add(TelemetryBatch.empty(Signal.LOGS), NOW) == Update()


def test_the_order_of_a_set_is_no_change_of_settings() -> None:
    """Signals are a set, which each process has in an order of its own; what shapes windows must not depend on it."""
    orders = (["logs", "traces", "metrics"], ["metrics", "traces", "logs"])
    shapes = [settings(signals=order, conditions=[{"signals": order, "names": ["a"]}]).shape() for order in orders]
    assert shapes[0] == shapes[1]
    assert shapes[0]["signals"] == shapes[0]["conditions"][0]["signals"] == frozenset(Signal)
