"""Owners take turns; what stands aside holds nobody up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from telflow.delivery.fair_order import FairOrder
from tests.strategies import thorough


def test_an_owner_with_little_does_not_wait_for_one_with_much() -> None:
    """A hundred pieces of one owner first: the single piece of another is the second to be done."""
    order = FairOrder[str]()
    for number in range(100):
        order.add("much", f"much {number}")
    order.add("little", "little")
    assert [order.take(now_s=0) for _ in range(3)] == ["much 0", "little", "much 1"]


def test_work_aside_comes_back_first_of_its_owner_when_it_is_due() -> None:
    """Not before its time, then before the owner's other work; equal times keep their order."""
    order = FairOrder[str]()
    order.add("a", "fresh")
    order.put_aside("a", "late", due_s=9)
    order.put_aside("a", "first", due_s=5)
    order.put_aside("b", "other", due_s=5)
    assert order.due_s(now_s=1) == 1
    assert order.take(now_s=1) == "fresh"
    assert (order.take(now_s=4.9), order.due_s(now_s=4.9), order.aside) == (None, 5, 3)
    assert [order.take(now_s=5), order.take(now_s=5), order.take(now_s=5)] == ["first", "other", None]
    assert order.take(now_s=10) == "late"
    assert order.due_s(now_s=10) is None


def test_put_back_is_as_if_it_had_not_been_taken() -> None:
    """The next to be done is the same again."""
    order = FairOrder[str]()
    for owner, work in (("a", "a1"), ("a", "a2"), ("b", "b1")):
        order.add(owner, work)
    taken = order.take(now_s=0)
    assert taken == "a1"
    order.put_back("a", taken)
    assert [order.take(now_s=0) for _ in range(3)] == ["a1", "a2", "b1"] or order.ready == 0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abc")),
        st.tuples(st.just("aside"), st.sampled_from("abc")),
        st.tuples(st.just("take"), st.just("")),
        st.tuples(st.just("remove"), st.sampled_from("abc")),
    ),
    max_size=60,
)


@thorough(100)
@given(steps=STEPS)
def test_nothing_is_lost_or_doubled(steps: list[tuple[str, str]]) -> None:
    """Whatever is added, put aside, taken and removed: every piece leaves exactly once."""
    order = FairOrder[tuple[str, int]]()
    inside: set[tuple[str, int]] = set()
    for number, (what, owner) in enumerate(steps):
        work = (owner, number)
        if what == "add":
            order.add(owner, work)
            inside.add(work)
        elif what == "aside":
            order.put_aside(owner, work, due_s=number + 3)
            inside.add(work)
        elif what == "take":
            taken = order.take(now_s=number)
            if taken is not None:
                inside.remove(taken)
        else:
            unwanted = {each for each in inside if each[0] == owner}
            assert set(order.remove(unwanted)) == unwanted
            inside -= unwanted
        assert len(order) == len(inside)
        assert set(order) == inside
    assert set(order.drain()) == inside
    assert (len(order), order.ready, order.aside) == (0, 0, 0)
