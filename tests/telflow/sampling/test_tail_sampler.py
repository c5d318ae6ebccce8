"""The tail sampler against a slow, obvious one: the same spans are kept, with the same thresholds."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telflow.accounting import Outcome
from telflow.errors import BatchError
from telflow.sampling import TailSampler, TailSamplingSettings
from telflow.sampling.trace_state import threshold_of
from tests.sampling import Row, Runner, SlowSampler, kept_rows, rows_batch
from tests.spans import EPOCH, SECOND

EXAMPLES = int(os.environ.get("TELFLOW_HYPOTHESIS_EXAMPLES", "60"))
POLICIES = [
    {"type": "status"},
    {"type": "latency", "threshold": "5s"},
    {
        "type": "and",
        "policies": [
            {"type": "string_attribute", "key": "route", "values": ["/a"]},
            {"type": "probabilistic", "percentage": 50},
        ],
    },
    {"type": "probabilistic", "percentage": 12.5},
]


def threshold(rows: list[Row]) -> int:
    """The same policies, trace by trace."""
    started, ended = min(r.at * SECOND for r in rows), max(r.at * SECOND + r.duration for r in rows)
    if any(row.error for row in rows) or ended - started >= 5 * SECOND:
        return 0
    if any(row.attributes.get("route") == "/a" for row in rows):
        return threshold_of(0.5)
    return threshold_of(0.125)


@st.composite
def streams(draw: st.DrawFn) -> list[Row]:
    """Spans of a few traces, in the order in which they come."""
    seconds = sorted(draw(st.lists(st.integers(0, 30), min_size=1, max_size=60)))
    return [
        Row(
            trace=draw(st.integers(1, 9)),
            span=number,
            at=second,
            root=draw(st.booleans()),
            error=draw(st.integers(0, 9)) == 0,
            duration=draw(st.integers(0, 3)) * SECOND,
            tenant=draw(st.sampled_from(["acme", "initech", None])),
            attributes={"route": draw(st.sampled_from(["/a", "/b"]))} if draw(st.booleans()) else {},
        )
        for number, second in enumerate(seconds)
    ]


def batches_of(rows: list[Row], cuts: set[int]) -> list[list[Row]]:
    """Cut where asked, and wherever the second changes."""
    parts: list[list[Row]] = []
    for number, row in enumerate(rows):
        if not parts or number in cuts or row.at != parts[-1][-1].at:
            parts.append([])
        parts[-1].append(row)
    return parts


def as_thresholds(kept: dict[int, str]) -> dict[int, int]:
    return {n: int(s.removeprefix("ot=th:").ljust(14, "0"), 16) if s else 0 for n, s in kept.items()}


def dropped(runner: Runner) -> dict[tuple[str, str], int]:
    return {(r.tenant, r.reason): r.count for r in runner.ledger.rows() if r.outcome is Outcome.DROPPED}


def options(**others: object) -> TailSamplingSettings:
    return TailSamplingSettings.model_validate({"policies": POLICIES, "decision_wait": "4s", "shards": 3} | others)


@settings(max_examples=EXAMPLES, deadline=None)
@given(streams(), st.sets(st.integers(0, 60)), st.sampled_from([None, 0, 2]), st.integers(0, 60), st.booleans())
def test_same_as_the_slow_sampler(
    rows: list[Row], cuts: set[int], after_root: int | None, restart: int, idle: bool
) -> None:
    """Random traces of several tenants, random cuts, late spans, root spans, a restart in the middle: equal."""
    slow = SlowSampler(4, after_root, threshold)
    runner = Runner(options(decision_wait_after_root=None if after_root is None else f"{after_root}s"))
    for number, part in enumerate(batches_of(rows, cuts)):
        if number == restart:
            runner.restart()
        if idle:
            runner.advance(EPOCH + part[0].at * SECOND)
        runner.add(rows_batch(part), EPOCH + part[0].at * SECOND)
        for row in part:
            slow.add(row)
    runner.advance(EPOCH + 100 * SECOND)
    slow.reach(100)
    assert as_thresholds(kept_rows(runner.out)) == slow.kept
    assert dropped(runner) == slow.dropped
    assert not runner.held
    assert all(sampler.due_unix_nano() is None for sampler in runner.samplers)


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(streams(), st.sets(st.integers(0, 60)))
def test_in_event_time_only_order_matters(rows: list[Row], cuts: set[int]) -> None:
    """A day replayed in one go gives what the live run gave: the system clock does not matter, nor do batches."""
    outs = []
    for chosen, clock in ((cuts, 1), (set[int](), 1000)):
        runner = Runner(options(time="event", idle_timeout=None, shards=1))
        parts = batches_of(rows, chosen) if chosen else [rows]
        for number, part in enumerate(parts):
            runner.add(rows_batch(part), EPOCH + 3600 * SECOND * (1 + number * clock))
        runner.finish()
        outs.append((kept_rows(runner.out), dropped(runner)))
    assert outs[0] == outs[1]


def test_a_trace_waits_for_all_its_time() -> None:
    """Decided at the end of the interval after the wait, not before; `due_unix_nano` says when."""
    runner = Runner(options(shards=1))
    runner.add(rows_batch([Row(trace=1, span=1, error=True)]), EPOCH + SECOND // 2)
    (sampler,) = runner.samplers
    assert sampler.due_unix_nano() == EPOCH + SECOND
    runner.advance(EPOCH + SECOND)
    assert sampler.due_unix_nano() == EPOCH + 5 * SECOND
    runner.advance(EPOCH + 5 * SECOND - 1)
    assert not runner.out
    runner.advance(EPOCH + 5 * SECOND)
    assert list(kept_rows(runner.out)) == [1]


def test_time_that_a_process_stood_still_does_not_count() -> None:
    """After a restart an open trace still has the wait it had left, for its spans are in the queue."""
    runner = Runner(options(shards=1))
    runner.add(rows_batch([Row(trace=1, span=1)]), EPOCH)
    runner.advance(EPOCH + SECOND)
    runner.restart()
    runner.samplers[0].idle_since(EPOCH + 1000 * SECOND)
    runner.add(rows_batch([Row(trace=1, span=2, error=True)]), EPOCH + 1002 * SECOND)
    runner.advance(EPOCH + 1010 * SECOND)
    assert sorted(kept_rows(runner.out)) == [1, 2]


def test_a_clock_set_back_does_not_stop_decisions() -> None:
    """Waiting goes on from where it was."""
    runner = Runner(options(shards=1))
    runner.add(rows_batch([Row(trace=1, span=1, error=True)]), EPOCH)
    for second in range(8):
        runner.advance(EPOCH + (second - 3600) * SECOND)
    assert list(kept_rows(runner.out)) == [1]


@pytest.mark.parametrize(
    "bound", [{"max_traces": 20}, {"max_bytes": 1 << 20, "shards": 128}, {"max_spans_per_trace": 3}]
)
def test_beyond_its_bounds_it_decides_early_and_says_so(bound: dict[str, int]) -> None:
    """No span is lost or kept half: early traces are decided by what is there, and the rest follows."""
    runner = Runner(options(**{"shards": 1} | bound))
    rows = [Row(trace=n % 60, span=n, error=n < 30, attributes={"x": "y" * 3000}) for n in range(240)]
    for start in range(0, 240, 60):
        runner.add(rows_batch(rows[start : start + 60]), EPOCH + start // 60 * SECOND)
        runner.advance(EPOCH + (start // 60 + 1) * SECOND)
    assert runner.early
    runner.advance(EPOCH + 100 * SECOND)
    kept = set(kept_rows(runner.out))
    for trace in range(60):
        assert len({row.span in kept for row in rows if row.trace == trace}) == 1
    lost = dropped(runner)
    assert len(kept) + sum(lost.values()) == 240
    assert {row.span for row in rows if row.trace < 30} <= kept
    assert lost["acme", "not sampled, decided early"]


def test_the_oldest_trace_goes_first() -> None:
    """What came last is still open when there is no more room."""
    runner = Runner(options(shards=1, max_traces=10))
    runner.add(rows_batch([Row(trace=n, span=n) for n in range(20)]), EPOCH)
    runner.advance(EPOCH + SECOND)
    (sampler,) = runner.samplers
    assert (sampler.open_traces, runner.early) == (9, 11)
    runner.add(rows_batch([Row(trace=n, span=100 + n, error=True) for n in range(11, 20)]), EPOCH + SECOND)
    runner.advance(EPOCH + 9 * SECOND)
    assert {n for n in kept_rows(runner.out) if n >= 100} == set(range(111, 120))


def test_a_forgotten_decision_opens_the_trace_anew() -> None:
    """The cache is bounded, and so a span may come too late even for it."""
    runner = Runner(options(shards=1, decision_cache=0))
    runner.add(rows_batch([Row(trace=1, span=1)]), EPOCH)
    runner.advance(EPOCH + 10 * SECOND)
    runner.add(rows_batch([Row(trace=1, span=2, error=True)]), EPOCH + 10 * SECOND)
    runner.advance(EPOCH + 20 * SECOND)
    assert 2 in kept_rows(runner.out)


def test_other_policies_after_a_restart() -> None:
    """What both policies ask is remembered of open traces; a trace opened before is decided by today's policies."""
    before = options(shards=1, policies=[{"type": "status", "codes": ["OK"]}, {"type": "status"}])
    after = options(shards=1, policies=[{"type": "status"}], interval="500ms")
    runner = Runner(before)
    runner.add(rows_batch([Row(trace=1, span=1, error=True), Row(trace=2, span=2)]), EPOCH)
    runner.restart(after)
    runner.advance(EPOCH + 20 * SECOND)
    runner.advance(EPOCH + 40 * SECOND)
    assert list(kept_rows(runner.out)) == [1]


def test_state_of_another_version_is_refused() -> None:
    """With a hint what to do."""
    state = TailSampler(options()).state() | {"version": 99}
    with pytest.raises(BatchError, match="version 2, got 99: drain"):
        TailSampler(options()).restore(state)


def test_the_lowest_threshold_of_a_trace_holds() -> None:
    """A trace that a policy wants in any case stands for itself alone, whatever other policies say."""
    assert threshold([Row(trace=1, span=1, error=True, attributes={"route": "/a"})]) == 0
    runner = Runner(options(shards=1))
    runner.add(rows_batch([Row(trace=n, span=n, error=n % 2 == 0, trace_state="v=1") for n in range(40)]), EPOCH)
    runner.finish()
    kept = kept_rows(runner.out)
    assert set(range(0, 40, 2)) <= set(kept)
    assert {kept[n] for n in range(0, 40, 2)} == {"v=1"}
    assert {state for n, state in kept.items() if n % 2} == {f"ot=th:{threshold_of(0.125):014x}".rstrip("0") + ",v=1"}
