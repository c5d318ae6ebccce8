"""One after the other: nothing overtakes, whoever owns it and whatever fails; in a queue as by itself."""

from __future__ import annotations

import threading

from telflow.accounting import Ledger
from telflow.delivery.in_order import InOrder
from telflow.delivery.transport import Answer
from telflow.schema import Signal
from tests.delivery import ACCEPTED, BUSY, WRONG, Destination, FakeClock, logs, outcomes, queue_to


def test_what_stands_aside_holds_up_the_rest() -> None:
    """Until its time has come; what is removed holds up nobody."""
    order = InOrder[str]()
    for owner, work in (("a", "a1"), ("b", "b1"), ("a", "a2")):
        order.add(owner, work)
    assert (len(order), order.ready, list(order)) == (3, 3, ["a1", "b1", "a2"])
    first = order.take(now_s=0)
    assert first == "a1"
    order.put_aside("a", first, due_s=5.0)
    assert (order.ready, order.aside, order.take(now_s=4), order.due_s(now_s=4)) == (0, 1, None, 5.0)
    assert order.remove({"a1"}) == ["a1"]
    assert (order.aside, order.take(now_s=4)) == (0, "b1")
    order.put_back("b", "b1")
    assert order.drain() == ["b1", "a2"]
    assert (order.take(now_s=9), order.due_s(now_s=9), len(order)) == (None, None, 0)


def test_a_queue_in_order() -> None:
    """Two owners, every third try fails, one request is refused: what arrives does so in the order it was put in."""
    tries, inside, together = [0], threading.Semaphore(1), []
    seen: list[int] = []

    def answer(signal: Signal, body: bytes) -> Answer:
        assert signal is Signal.LOGS
        if not inside.acquire(blocking=False):
            together.append(1)
        try:
            tries[0] += 1
            if tries[0] % 3 == 0:
                return BUSY
            seen.append(len(body))  # each is longer than the one before
            return WRONG if len(seen) == 4 else ACCEPTED
        finally:
            inside.release()

    clock, ledger = FakeClock(), Ledger()
    queue = queue_to(Destination(answer), ledger=ledger, clock=clock, in_order=True)
    for number in range(1, 13):
        queue.put(logs(number, tenant="a" if number % 2 else "b"))
    queue.snapshot()
    queue.close()
    assert seen == sorted(seen)
    assert len(seen) == 12
    assert not together
    counted = outcomes(ledger)
    assert sum(n for (outcome, *_), n in counted.items() if outcome == "delivered") == sum(range(1, 13)) - 4
    assert sum(n for (outcome, *_), n in counted.items() if outcome == "dropped") == 4
