"""Which of several endpoints a request goes to: the first that is well, each in turn, the least busy, or by a key."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from telflow.batch import TelemetryBatch
from telflow.delivery.endpoints import Endpoint, EndpointPool, failed
from telflow.delivery.routing_key import RoutingKey
from telflow.delivery.transport import Answer
from telflow.hashing import assign
from telflow.schema import Signal

__all__ = ["Balancer", "HashRouter", "Strategy"]

Strategy = Literal["failover", "round_robin", "least_pending", "consistent_hash"]
"""How requests are spread over endpoints."""


class Balancer:
    """A `Transport` over several endpoints: what one does not take now, the next is asked to take."""

    def __init__(self, pool: EndpointPool, strategy: Literal["failover", "round_robin", "least_pending"]) -> None:
        """Choose the way.

        Args:
            pool: The endpoints.
            strategy: ``failover``: the first that is well, so the first of all as soon as it is well again.
                ``round_robin``: each in turn. ``least_pending``: the one with the fewest requests on their way.
        """
        self._pool = pool
        self._turn = itertools.count()
        orders: dict[str, Callable[[Sequence[Endpoint]], list[Endpoint]]] = {
            "failover": list,
            "round_robin": self._rotated,
            "least_pending": lambda well: sorted(self._rotated(well), key=lambda endpoint: endpoint.pending),
        }
        self._order = orders[strategy]

    def send(self, signal: Signal, body: bytes) -> Answer:
        """See `Transport.send`; returns the last answer when no endpoint takes the request."""
        first, *others = self._order(self._pool.well)
        answer = first.send(signal, body)
        for endpoint in others:
            if not failed(answer):
                break
            answer = endpoint.send(signal, body)
        return answer

    def close(self) -> None:
        """See `Transport.close`."""
        self._pool.close()

    def _rotated(self, well: Sequence[Endpoint]) -> list[Endpoint]:
        start = next(self._turn) % len(well)
        return [*well[start:], *well[:start]]


class HashRouter:
    """A `Router` over several endpoints: records with the same key go to the same one, as long as it is well.

    All gateways with the same endpoints agree on which that is. When an endpoint is out, its keys are spread over the
    others and nobody else's keys move; when it is in again, it has them back.
    """

    def __init__(self, pool: EndpointPool, key: RoutingKey) -> None:
        """Choose the key.

        Args:
            pool: The endpoints.
            key: By what records are spread.
        """
        self._pool = pool
        self._key = key
        self._by_name = {endpoint.name: endpoint for endpoint in pool.endpoints}

    @property
    def well(self) -> bool:
        """See `Router.well`."""
        return self._pool.any_well

    def split(self, batch: TelemetryBatch) -> list[tuple[str, TelemetryBatch]]:
        """See `Router.split`."""
        names = [endpoint.name for endpoint in self._pool.well]
        if len(names) == 1 or not batch.num_rows:
            return [(names[0], batch)]
        places = assign(self._key.hashes(batch), names)
        used = np.flatnonzero(np.bincount(places, minlength=len(names))).tolist()
        return [(names[place], batch.filter(places == place)) for place in used]

    def leads(self, route: str) -> bool:
        """See `Router.leads`."""
        endpoint = self._by_name.get(route)
        return endpoint is not None and (endpoint.well or not self._pool.any_well)

    def send_to(self, route: str, signal: Signal, body: bytes) -> Answer:
        """See `Router.send_to`."""
        return self._by_name[route].send(signal, body)

    def close(self) -> None:
        """See `Router.close`."""
        self._pool.close()
