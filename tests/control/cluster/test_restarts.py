"""How often and how soon lost workers are started again."""

from __future__ import annotations

from datetime import timedelta

from control.cluster.restarts import Restarts
from control.cluster.settings import RestartSettings


def test_the_first_restart_does_not_wait_and_each_further_one_twice_as_long() -> None:
    """Up to the longest wait; after a minute of work the next one does not wait again."""
    restarts = Restarts(RestartSettings(limit=100, max_interval=timedelta(seconds=3)))
    assert [restarts.next_wait_s(now_s=0) for _ in range(6)] == [0, 0.5, 1, 2, 3, 3]
    restarts.ran(59)
    assert restarts.next_wait_s(now_s=0) == 3
    restarts.ran(60)
    assert restarts.next_wait_s(now_s=0) == 0
    assert restarts.total == 8


def test_too_many_within_the_time_are_given_up_and_old_ones_are_forgotten() -> None:
    """The limit is one of a sliding time."""
    restarts = Restarts(RestartSettings(limit=2, within=timedelta(seconds=10)))
    assert restarts.next_wait_s(now_s=0) == 0
    assert restarts.next_wait_s(now_s=5) == 0.5
    assert restarts.next_wait_s(now_s=9) is None
    assert restarts.next_wait_s(now_s=11) == 1


def test_a_limit_of_none_gives_up_at_the_first_loss() -> None:
    """limit: 0."""
    assert Restarts(RestartSettings(limit=0)).next_wait_s(now_s=0) is None
