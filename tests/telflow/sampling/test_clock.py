"""What time it is for a sampler: by the system clock, which may jump, or by the spans."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from telflow.sampling.clock import SamplingClock
from telflow.sampling.predicates import Predicates
from telflow.sampling.settings import TailSamplingSettings
from telflow.sampling.span_facts import SpanFacts
from tests.sampling import Row, rows_batch
from tests.spans import EPOCH, SECOND

EXAMPLES = int(os.environ.get("TELFLOW_HYPOTHESIS_EXAMPLES", "60"))
NOTHING = Predicates(())
FIRST = EPOCH // SECOND


def clock(**options: Any) -> SamplingClock:
    return SamplingClock(TailSamplingSettings.model_validate({"policies": [{"type": "always"}], **options}))


def facts(ends: list[int]) -> SpanFacts:
    """Spans that end in these seconds after EPOCH."""
    rows = [Row(trace=1, span=n, at=second, duration=0) for n, second in enumerate(ends)]
    return SpanFacts.of(rows_batch(rows), "a", NOTHING)


def test_processing_time_is_the_system_clock() -> None:
    """Whatever the spans say; a tick is reached when it begins."""
    one = clock(interval="2s")
    (whole,) = one.split(facts([50, 7]), EPOCH)
    assert (len(whole[0]), whole[1]) == (2, FIRST // 2)
    assert one.advance(EPOCH + 3 * SECOND) == FIRST // 2 + 1
    assert one.system_time_of(FIRST // 2 + 2) == EPOCH + 4 * SECOND


def test_processing_time_never_goes_back() -> None:
    """A clock that is set back goes on from where it was, at the same pace."""
    one = clock()
    assert one.advance(EPOCH) == FIRST
    assert one.advance(EPOCH - 3600 * SECOND) == FIRST
    assert one.advance(EPOCH - 3598 * SECOND) == FIRST + 2
    assert one.system_time_of(FIRST + 3) == EPOCH - 3597 * SECOND


def test_standing_still_does_not_count() -> None:
    """After `idle_since` time goes on where it stood, also from a saved state."""
    one = clock()
    one.advance(EPOCH)
    again = clock()
    again.restore(one.state())
    again.idle_since(EPOCH + 1000 * SECOND)
    assert again.advance(EPOCH + 1002 * SECOND) == FIRST + 2


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.lists(st.integers(0, 20), max_size=8), max_size=5))
def test_event_time_is_the_latest_end_so_far(batches: list[list[int]]) -> None:
    """However spans are cut into batches: each gets the tick that its predecessors and it have reached."""
    one, latest, now = clock(time="event", interval="3s"), 0, EPOCH + 10_000 * SECOND
    for ends in batches:
        found = []
        for part, tick in one.split(facts(ends), now):
            assert len(part)
            found += [(int(row), tick) for row in part.rows]
        expected = []
        for row, second in enumerate(ends):
            latest = max(latest, EPOCH + second * SECOND)
            expected.append((row, latest // (3 * SECOND)))
        assert found == expected


def test_a_sender_whose_clock_is_ahead_moves_time_no_further_than_ours() -> None:
    """Else one such span would decide all open traces."""
    one = clock(time="event")
    assert [tick for _, tick in one.split(facts([0, 500, 1]), EPOCH + 5 * SECOND)] == [FIRST, FIRST + 5]


def test_without_spans_event_time_stands_still_until_the_timeout() -> None:
    """Then all the time since the last spans counts; with no timeout, none ever does."""
    one = clock(time="event", idle_timeout="10s")
    one.split(facts([0]), EPOCH + 100 * SECOND)
    assert one.advance(EPOCH + 109 * SECOND) == FIRST
    assert one.advance(EPOCH + 110 * SECOND) == FIRST + 10
    assert one.system_time_of(FIRST + 3) == EPOCH + 110 * SECOND
    assert one.system_time_of(FIRST + 30) == EPOCH + 130 * SECOND
    never = clock(time="event", idle_timeout=None)
    never.split(facts([0]), EPOCH + 100 * SECOND)
    assert never.advance(EPOCH + 1000 * SECOND) == FIRST
    assert never.system_time_of(FIRST + 1) is None


def test_no_spans_at_all() -> None:
    """Nothing to cut."""
    assert clock(time="event").split(facts([0]).at(np.empty(0, np.int64)), EPOCH) == []
