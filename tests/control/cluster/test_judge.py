"""Who is lost, from life signs and a clock."""

from __future__ import annotations

from typing import Any

import pytest

from control.cluster.judge import Loss, Member, blame, judge


def member(index: int, heard_s: float = 100.0, **beat: Any) -> Member:
    made = Member(index, "local", "127.0.0.1:1", heard_s)
    made.beat = {"progress_age_s": 0.1, "call_s": 0.0, "where": ""} | beat
    return made


def verdict(*members: Member, draining: bool = False) -> Loss | None:
    return judge(members, 100.0, silence_s=5, hang_s=8, draining=draining)


def test_a_silent_worker_is_lost_also_while_draining() -> None:
    """SIGSTOP: no word for longer than the limit."""
    for draining in (False, True):
        loss = verdict(member(0), member(1, heard_s=94.9), draining=draining)
        assert loss is not None
        assert loss.worker == 1
        assert "silent" in loss.reason
    assert verdict(member(0), member(1, heard_s=95.1)) is None


def test_the_worker_whose_call_lasts_is_named_and_not_those_that_wait_for_it() -> None:
    """All dataflows stand still; the one that is inside a call is at fault."""
    waits = member(0, progress_age_s=9.0)
    hangs = member(1, progress_age_s=9.5, call_s=9.0, where="flow.py:3 in slow")
    loss = verdict(waits, hangs)
    assert loss is not None
    assert str(loss) == "worker 1 hangs: one call takes 9.0 s, in flow.py:3 in slow"
    assert verdict(waits, hangs, draining=True) is None


def test_workers_that_wait_for_each_other_for_ever_are_lost_together() -> None:
    """No call lasts, but no dataflow goes round: the engine's own deadlock."""
    loss = verdict(member(0, progress_age_s=17.0), member(1, progress_age_s=16.5))
    assert loss is not None
    assert loss.worker is None
    assert verdict(member(0, progress_age_s=17.0), member(1, progress_age_s=1.0)) is None


def test_a_worker_that_still_starts_or_has_ended_is_not_judged() -> None:
    """No life sign yet, or an exit status."""
    starting = member(0, heard_s=0.0)
    starting.beat = {}
    ended = member(1, heard_s=0.0)
    ended.status = 0
    assert verdict(starting, ended) is None
    assert [starting.state, ended.state, member(2).state] == ["starting", "ended", "running"]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([(3, "Send thread panic"), (-9, "")], "worker 1 was ended by SIGKILL"),
        ([(3, "the engine panicked"), (3, "step x: KeyError")], "worker 1 failed: step x: KeyError"),
        ([(0, ""), (134, "")], "worker 1 ended with exit code 134"),
        ([(0, ""), (None, "")], "a worker ended early"),
    ],
)
def test_the_one_at_fault_is_told_from_those_it_took_along(ends: list[tuple[int | None, str]], expected: str) -> None:
    """A signal, then an error of a worker's own, then an exit code; a panic is what a loss does to the others."""
    members = [member(0), member(1)]
    for one, (status, error) in zip(members, ends, strict=True):
        one.status = status
        one.ended = {"code": 3, "error": error}
    assert str(blame(members)) == expected
