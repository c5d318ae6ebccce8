"""The slow, obvious service graph: span by span, in dictionaries. And random calls for it."""

from __future__ import annotations

import bisect
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from operators import ServiceGraphSettings
from telflow.batch import TelemetryBatch
from telflow.service_graph.settings import nanos
from tests.metric_points import Histogram, Point
from tests.spans import EPOCH, SECOND, Span, spans_batch

__all__ = ["Edge", "Half", "calls_of", "edges_of", "halves_batch", "points_of_edges", "random_halves"]

SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
Edge = tuple[Any, ...]
"""Tenant, client, server, connection type, failed, client's and server's duration, end, zone of either."""


@dataclass(frozen=True)
class Half:
    """A span as the service graph sees it; `end` is nanoseconds after EPOCH."""

    trace: int
    span: int
    parent: int | None
    kind: int
    end: int
    service: str | None = "shop"
    duration: int = SECOND // 10
    failed: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)
    zone: str | None = None
    tenant: str | None = "acme"


def halves_batch(halves: Sequence[Half]) -> TelemetryBatch:
    """Spans in their order."""
    batch = spans_batch(
        [
            Span(
                end=EPOCH + half.end,
                duration=half.duration,
                service=half.service,
                kind=half.kind,
                tenant=half.tenant,
                status=2 if half.failed else None,
                attributes=half.attributes,
                resource_attributes={} if half.zone is None else {"zone": half.zone},
            )
            for half in halves
        ]
    )
    for name, width, ids in (
        ("trace_id", 16, [half.trace for half in halves]),
        ("span_id", 8, [half.span for half in halves]),
        ("parent_span_id", 8, [half.parent for half in halves]),
    ):
        values = [None if number is None else number.to_bytes(width, "little") for number in ids]
        batch = batch.with_column(name, pa.array(values, pa.binary(width)))
    return batch


def edges_of(halves: Sequence[Half], settings: ServiceGraphSettings, now: int) -> tuple[list[Edge], Counter[str]]:
    """Edges of one tenant's spans, everything being flushed in the end, and what is left out."""
    edges: list[Edge] = []
    left_out = Counter[str]()
    waiting: dict[tuple[int, int], list[Half]] = defaultdict(list)
    wait, high = nanos(settings.wait), -(10**30)
    for half in halves:
        if half.kind not in (SERVER, CLIENT, PRODUCER, CONSUMER):
            continue
        before, high = high, max(high, min(half.end, now))
        if _is_server(half) and half.parent is None:
            _single(half, settings, edges, left_out)
        elif not _is_server(half) and "db.name" in half.attributes:
            edges.append(
                _edge(half, None, half.service, half.attributes["db.name"], "database", half.duration, half.duration)
            )
        else:
            line = waiting[half.trace, half.parent if _is_server(half) else half.span]  # type: ignore[index]
            if line and _is_server(line[0]) != _is_server(half):
                other = line.pop(0)
                if other.end + wait > before:
                    client, server = (other, half) if _is_server(half) else (half, other)
                    messaging = {client.kind, server.kind} & {PRODUCER, CONSUMER}
                    kind = "messaging_system" if messaging else ""
                    edges.append(
                        _edge(client, server, client.service, server.service, kind, client.duration, server.duration)
                    )
                    continue
                _single(other, settings, edges, left_out)
            line.append(half)
    for line in waiting.values():
        for half in line:
            _single(half, settings, edges, left_out)
    return edges, left_out


def _is_server(half: Half) -> bool:
    return half.kind in (SERVER, CONSUMER)


def _single(half: Half, settings: ServiceGraphSettings, edges: list[Edge], left_out: Counter[str]) -> None:
    if not settings.virtual_nodes or (_is_server(half) and half.parent is not None):
        left_out["unpaired"] += 1
    elif _is_server(half):
        edges.append(_edge(None, half, "user", half.service, "virtual_node", None, half.duration))
    else:
        names = [half.attributes[name] for name in settings.virtual_node_peer_attributes if name in half.attributes]
        peer = names[0] if names else "unknown"
        edges.append(_edge(half, None, half.service, peer, "virtual_node", half.duration, None))


def _edge(client: Half | None, server: Half | None, *rest: Any) -> Edge:
    some = [half for half in (client, server) if half is not None]
    from_service, to_service, kind, client_took, server_took = rest
    return (
        some[0].tenant,
        from_service or "unknown_service",
        to_service or "unknown_service",
        kind,
        any(half.failed for half in some),
        client_took,
        server_took,
        max(half.end for half in some),
        None if client is None else client.zone,
        None if server is None else server.zone,
    )


def points_of_edges(edges: Sequence[Edge], settings: ServiceGraphSettings) -> list[Point]:
    """Delta points of all windows."""
    window, bounds = nanos(settings.window), [nanos(bound) for bound in settings.buckets]
    series: dict[Any, list[Edge]] = defaultdict(list)
    for edge in edges:
        series[(*edge[:5], *edge[8:], (EPOCH + edge[7]) // window * window - EPOCH)].append(edge)
    found = []
    for (tenant, client, server, kind, failed, mine, theirs, start), some in series.items():
        labels = {"client": client, "server": server, "connection_type": kind, "failed": failed}
        labels |= {} if mine is None else {"client_zone": mine}
        labels |= {} if theirs is None else {"server_zone": theirs}

        def add(name: str, value: Any, labels: Any = labels, start: int = start, tenant: Any = tenant) -> None:
            found.append(
                Point(start + window, value, start, f"traces_service_graph_{name}", labels, tenant=tenant, service="")
            )

        add("request_total", len(some))
        add("request_failed_total", len(some) if failed else 0)
        for name, place in (("server", 6), ("client", 5)):
            took = [edge[place] for edge in some if edge[place] is not None]
            counts = [0] * (len(bounds) + 1)
            for one in took:
                counts[bisect.bisect_left(bounds, one)] += 1
            low, high = (min(took) / 1e9, max(took) / 1e9) if took else (None, None)
            value = Histogram(tuple(b / 1e9 for b in bounds), tuple(counts), sum(took) / 1e9, low, high)
            add(f"request_{name}_seconds", value)
    return found


def random_halves(rng: random.Random, tenant: str | None = "acme", first: int = 0, start: int = 0) -> list[Half]:
    """Spans of some requests: whole and halved, of databases, queues and users, out of order by a few seconds."""
    found: list[tuple[int, Half]] = []
    for number in range(first, first + rng.randint(1, 12)):
        trace, span = rng.randint(1, 4), number + 1
        end = start + rng.randrange(20) * SECOND // 4
        kinds = rng.choice([(CLIENT, SERVER), (CLIENT, SERVER), (PRODUCER, CONSUMER)])
        attributes = rng.choice([{}, {}, {"db.name": "orders"}, {"peer.service": "mail"}, {"db.system": "redis"}])
        shared: dict[str, Any] = {"trace": trace, "tenant": tenant}
        client = Half(
            span=span,
            parent=rng.choice([None, 7]),
            kind=kinds[0],
            end=end,
            service=rng.choice(["shop", "cart", None]),
            duration=rng.randrange(30) * SECOND // 1000,
            failed=rng.random() < 0.2,
            attributes=attributes,
            zone=rng.choice([None, "a", "b"]),
            **shared,
        )
        server = Half(
            span=span + 10**6,
            parent=rng.choice([span, span, span, None]),
            kind=kinds[1],
            end=end + rng.randrange(-8, 8) * SECOND // 2,
            service=rng.choice(["pay", "stock"]),
            duration=rng.randrange(30) * SECOND // 1000,
            failed=rng.random() < 0.2,
            zone=rng.choice([None, "a"]),
            **shared,
        )
        both = [client] * (rng.random() < 0.9) + [server] * (rng.random() < 0.9 and "db.name" not in attributes)
        found += [(rng.randrange(100), half) for half in both]
    if rng.random() < 0.3:
        found.append((50, Half(9, 9, None, 1, start)))  # an internal span
    return [half for _, half in sorted(found, key=lambda item: item[0])]


def calls_of(source: str, number: int) -> list[Half]:
    """A batch of a source: requests of one tenant, each half in this batch or the next."""
    halves = []
    for batch in (number - 1, number):
        rng = random.Random(f"{source} {batch}")
        made = random_halves(rng, source, 100 * (batch + 1), batch * SECOND // 2)
        halves += [half for half in made if (rng.random() < 0.5) == (batch == number)]
    return halves
