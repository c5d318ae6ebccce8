"""Backoff: grows, varies, honours the destination, ends."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from telflow.delivery.retry import Backoff, RetrySettings
from tests.strategies import thorough


def test_the_defaults_are_those_users_of_the_collector_expect() -> None:
    """5 s, growing to 30 s, given up after 5 minutes."""
    backoff = Backoff(RetrySettings(jitter=0), started_s=0)
    now, waits = 0.0, []
    while (wait := backoff.next_wait_s(now_s=now)) is not None:
        waits.append(wait)
        now += wait
    assert waits[:6] == [5.0, 7.5, 11.25, 16.875, 25.3125, 30.0]
    assert set(waits[6:]) == {30.0}
    assert 270 < now <= 300


@thorough(50)
@given(seed=st.integers(0, 1000), jitter=st.floats(0, 0.99))
def test_jitter_stays_within_its_share(seed: int, jitter: float) -> None:
    """Each wait lies around its interval, by at most the share."""
    backoff = Backoff(RetrySettings(jitter=jitter), started_s=0, rng=random.Random(seed))
    for interval in (5.0, 7.5, 11.25):
        wait = backoff.next_wait_s(now_s=0)
        assert wait is not None
        assert interval * (1 - jitter) * 0.999 <= wait <= interval * (1 + jitter) * 1.001


def test_what_the_destination_asks_for_counts() -> None:
    """Shorter and longer waits than the interval are honoured, but not beyond the end."""
    backoff = Backoff(RetrySettings(), started_s=0)
    assert backoff.next_wait_s(now_s=0, retry_after_s=0.1) == 0.1
    assert backoff.next_wait_s(now_s=0, retry_after_s=120.0) == 120.0
    assert backoff.next_wait_s(now_s=200, retry_after_s=120.0) is None


def test_no_end_and_no_retry() -> None:
    """max_elapsed_time 0 never gives up; disabled never begins."""
    assert Backoff(RetrySettings(max_elapsed_time="0"), started_s=0).next_wait_s(now_s=1e9) is not None  # type: ignore[arg-type]
    assert Backoff(RetrySettings(enabled=False), started_s=0).next_wait_s(now_s=0) is None


def test_intervals_that_contradict_each_other_are_refused() -> None:
    """The message has both values."""
    with pytest.raises(ValidationError, match=r"at least initial_interval \(60s\), got 30s"):
        RetrySettings(initial_interval="1m")  # type: ignore[arg-type]
