"""Endpoints are taken out when they fail and come back when they are well; strategies spread over those that are in."""

from __future__ import annotations

import logging
import threading

import pytest

from telflow import Signal
from telflow.delivery.balancing import Balancer, HashRouter, Strategy
from telflow.delivery.endpoints import EndpointPool, HealthCheckSettings
from telflow.delivery.routing_key import RoutingKey
from telflow.delivery.transport import Answer, Router, Transport, Verdict
from tests.delivery import ACCEPTED, BUSY, WRONG, Destination, dead, logs, wait_for

QUICK = HealthCheckSettings.model_validate({"interval": "5ms"})
NEVER = HealthCheckSettings.model_validate({"interval": "1h"})
OVER_QUOTA = Answer(Verdict.RETRYABLE, "RESOURCE_EXHAUSTED", retry_after_s=1)


class Three:
    """Three destinations, all well."""

    def __init__(self) -> None:
        self.destinations = [Destination(), Destination(), Destination()]

    def pool(self, settings: HealthCheckSettings = NEVER) -> EndpointPool:
        return EndpointPool([(f"d{n}:4317", d) for n, d in enumerate(self.destinations)], settings)

    @property
    def accepted(self) -> list[int]:
        return [len(destination.accepted) for destination in self.destinations]


@pytest.fixture
def three() -> Three:
    return Three()


def balancer(three: Three, strategy: Strategy, settings: HealthCheckSettings = NEVER) -> Balancer:
    assert strategy != "consistent_hash"
    return Balancer(three.pool(settings), strategy)


def test_failover_uses_the_first_that_is_well(three: Three) -> None:
    """While the first fails each request goes on to the second at once; the third has nothing to do."""
    transport: Transport = balancer(three, "failover")
    assert transport.send(Signal.LOGS, b"") == ACCEPTED
    three.destinations[0].answer = lambda *_: BUSY
    assert [transport.send(Signal.LOGS, b"") for _ in range(10)] == [ACCEPTED] * 10
    assert three.accepted == [1, 10, 0]
    assert three.destinations[0].tries == 1 + 3  # out after three failures
    transport.close()
    assert all(destination.closed for destination in three.destinations)


def test_failover_returns_to_the_first_when_it_is_well(three: Three, caplog: pytest.LogCaptureFixture) -> None:
    """The health check finds out, with an empty request, and says so."""
    transport = balancer(three, "failover", QUICK)
    three.destinations[0].answer = lambda *_: BUSY
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            transport.send(Signal.LOGS, b"x")
        three.destinations[0].answer = lambda *_: ACCEPTED
        wait_for(lambda: "endpoint d0:4317 is in again" in caplog.text)
    assert "endpoint d0:4317 is out: UNAVAILABLE" in caplog.text
    transport.send(Signal.LOGS, b"back")
    assert three.destinations[0].accepted[-1] == (Signal.LOGS, b"back")
    assert (Signal.TRACES, b"") in three.destinations[0].accepted
    transport.close()


def test_a_probe_that_is_refused_is_an_answer(three: Three) -> None:
    """A backend that takes no traces says so: somebody is there."""
    transport = balancer(three, "failover", QUICK)
    three.destinations[0].answer = lambda *_: BUSY
    for _ in range(3):
        transport.send(Signal.LOGS, b"x")
    three.destinations[0].answer = lambda signal, _: WRONG if signal is Signal.TRACES else ACCEPTED
    tries = three.destinations[0].tries
    wait_for(lambda: three.destinations[0].tries > tries)
    wait_for(lambda: transport.send(Signal.LOGS, b"x") == ACCEPTED and bool(three.destinations[0].accepted))
    transport.close()


def test_round_robin_gives_each_its_turn(three: Three) -> None:
    """Thirty requests: ten each; with one out, fifteen each for the others."""
    transport = balancer(three, "round_robin")
    for _ in range(30):
        transport.send(Signal.LOGS, b"")
    assert three.accepted == [10, 10, 10]
    three.destinations[1].answer = lambda *_: BUSY
    for _ in range(30):
        assert transport.send(Signal.LOGS, b"") == ACCEPTED
    first, second, third = three.accepted
    assert second == 10
    assert first + third == 50
    assert abs(first - third) <= 4
    transport.close()


def test_least_pending_leaves_the_slow_one_alone(three: Three) -> None:
    """One endpoint hangs with a request: the others get all further ones."""
    release = threading.Event()

    def hang(_signal: Signal, body: bytes) -> Answer:
        if body == b"slow":
            release.wait(30)
        return ACCEPTED

    for destination in three.destinations:
        destination.answer = hang
    transport = balancer(three, "least_pending")
    slow = threading.Thread(target=transport.send, args=(Signal.LOGS, b"slow"))
    slow.start()
    wait_for(lambda: sum(destination.tries for destination in three.destinations) == 1)
    hanging = next(destination for destination in three.destinations if destination.tries)
    for _ in range(20):
        transport.send(Signal.LOGS, b"quick")
    assert hanging.tries == 1
    release.set()
    slow.join()
    assert len(hanging.accepted) == 1
    assert sum(three.accepted) == 21
    transport.close()


def test_a_quota_or_a_refusal_is_no_reason_to_ask_another(three: Three) -> None:
    """They would say the same, or take what they must not; and the endpoint is well."""
    transport = balancer(three, "failover")
    for answer in (OVER_QUOTA, WRONG):
        three.destinations[0].answer = lambda *_, answer=answer: answer
        assert [transport.send(Signal.LOGS, b"") for _ in range(5)] == [answer] * 5
    assert three.accepted == [0, 0, 0]
    transport.close()


def test_when_all_are_out_all_are_asked(three: Three) -> None:
    """The last answer is the destination's; the first that answers is in again."""
    transport = balancer(three, "round_robin")
    for destination in three.destinations:
        destination.answer = lambda *_: BUSY
    assert [transport.send(Signal.LOGS, b"") for _ in range(10)] == [BUSY] * 10
    three.destinations[2].answer = lambda *_: ACCEPTED
    assert transport.send(Signal.LOGS, b"") == ACCEPTED
    transport.close()


def test_a_transport_that_raises_counts_as_a_failure() -> None:
    """A fault of ours is not a reason to go on asking it."""

    class Broken(Destination):
        def send(self, signal: Signal, body: bytes) -> Answer:
            raise RuntimeError(signal, body)

    pool = EndpointPool([("broken", Broken()), ("fine", Destination())], NEVER)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            pool.endpoints[0].send(Signal.LOGS, b"")
    assert [endpoint.name for endpoint in pool.well] == ["fine"]
    pool.close()


def test_a_key_always_goes_to_the_same_endpoint(three: Three) -> None:
    """By tenant; when its endpoint is out it moves, the others stay, and it comes back."""
    pool = three.pool(QUICK)
    router: Router = HashRouter(pool, RoutingKey("tenant"))
    batches = [logs(2, tenant=f"t{number}") for number in range(40)]

    def ways() -> list[str]:
        return [route for batch in batches for route, _ in router.split(batch)]

    before = ways()
    assert set(before) == {"d0:4317", "d1:4317", "d2:4317"}
    three.destinations[1].answer = lambda *_: BUSY
    for _ in range(3):
        assert router.send_to("d1:4317", Signal.LOGS, b"") == BUSY
    assert not router.leads("d1:4317")
    assert router.well
    during = ways()
    assert all(now == then for now, then in zip(during, before, strict=True) if then != "d1:4317")
    assert "d1:4317" not in during
    three.destinations[1].answer = lambda *_: ACCEPTED
    wait_for(lambda: router.leads("d1:4317"))
    assert ways() == before
    assert not router.leads("nobody")
    router.close()


def test_a_batch_is_split_by_key_without_losing_or_doubling_records() -> None:
    """All records of a batch are in its parts; with one endpoint, or no record, there is one part."""
    pool = EndpointPool([(name, Destination()) for name in ("a", "b", "c", "d")], NEVER)
    router = HashRouter(pool, RoutingKey("tenant"))
    parts = [part for number in range(30) for part in router.split(logs(3, tenant=f"t{number}"))]
    assert sum(part.num_rows for _, part in parts) == 90
    alone = HashRouter(EndpointPool([("a", Destination())], NEVER), RoutingKey())
    assert [(route, part.num_rows) for route, part in alone.split(logs(5))] == [("a", 5)]
    assert [part.num_rows for _, part in router.split(logs(0))] == [0]
    router.close()


def test_when_all_are_out_every_way_leads_somewhere() -> None:
    """Nothing is split anew in circles."""
    router = HashRouter(EndpointPool([("a", dead()), ("b", dead())], NEVER), RoutingKey("tenant"))
    for _ in range(3):
        for route in ("a", "b"):
            router.send_to(route, Signal.LOGS, b"")
    assert (router.well, router.leads("a"), router.leads("b")) == (False, True, True)
    router.close()
