"""Spans into a gateway, their metrics out to a real Prometheus: by PromQL the numbers of a count span by span."""

from __future__ import annotations

import bisect
import collections
import itertools
import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from connectors.otlp import OtlpClient, OtlpClientSettings
from control.account import totals
from control.gateway_run import Gateway
from flows.gateway import GatewaySettings
from telflow.accounting import Ledger
from tests.kafka_broker import free_ports
from tests.prometheus_server import Prometheus, needs_prometheus, run_prometheus
from tests.spans import Span, spans_batch

pytestmark = needs_prometheus

BOUNDS_S = [0.1, 0.25, 1.0]
SECOND = 10**9


def _spans(rng: random.Random, count: int) -> list[Span]:
    """Spans that ended within the last two seconds."""
    now = time.time_ns()
    return [
        Span(
            end=now - rng.randrange(2 * SECOND),
            duration=rng.choice([SECOND // 16, SECOND // 10, SECOND // 8, SECOND // 2, 3 * SECOND]),
            name=rng.choice(["GET /", "POST /cart"]),
            service=rng.choice(["shop", "pay"]),
            tenant=None,
            status=rng.choice([None, 2]),
            attributes={"http.route": rng.choice(["/a", "/b"])},
        )
        for _ in range(count)
    ]


Series = tuple[str, str, str, str]


def _series(span: Span) -> Series:
    status = "STATUS_CODE_ERROR" if span.status else "STATUS_CODE_UNSET"
    return span.service or "", span.name, status, span.attributes["http.route"]


def _by(server: Prometheus, query: str) -> dict[tuple[str, ...], float]:
    labels = ("job", "span_name", "status_code", "http_route", "le")
    found = {}
    for key, value in server.query(query).items():
        named = dict(key)
        found[tuple(named[name] for name in labels if name in named)] = value
    return found


def _expect(server: Prometheus, spans: list[Span], prefix: str = "traces_span_metrics") -> None:
    """Calls, sums and buckets of every series."""
    per: dict[Series, list[Span]] = collections.defaultdict(list)
    for span in spans:
        per[_series(span)].append(span)
    by = "(job, span_name, status_code, http_route)"
    server.wait(lambda: server.value(f"sum({prefix}_calls_total)") == len(spans))
    assert _by(server, f"sum by {by} ({prefix}_calls_total)") == {key: len(of) for key, of in per.items()}
    seconds = _by(server, f"sum by {by} ({prefix}_duration_seconds_sum)")
    assert seconds == pytest.approx({key: sum(s.duration for s in of) / SECOND for key, of in per.items()})
    buckets = {}
    for key, of in per.items():
        counts = [0] * (len(BOUNDS_S) + 1)
        for span in of:
            counts[bisect.bisect_left(BOUNDS_S, span.duration / SECOND)] += 1
        for bound, upto in zip([*map(str, BOUNDS_S), "+Inf"], itertools.accumulate(counts), strict=True):
            buckets[(*key, bound.removesuffix(".0"))] = upto
    by_bucket = "(job, span_name, status_code, http_route, le)"
    assert _by(server, f"sum by {by_bucket} ({prefix}_duration_seconds_bucket)") == buckets


class _Running:
    """A gateway in a thread of this process."""

    def __init__(self, folder: Path, **more: Any) -> None:
        given = {
            "receivers": {"otlp": {"grpc": False, "http": {"endpoint": "127.0.0.1:0"}}},
            "redact": False,
            "span_metrics": {
                "window": "1s",
                "lateness": "3s",
                "idle_timeout": "200ms",
                "buckets": ["100ms", "250ms", "1s"],
                "dimensions": [{"name": "http.route"}],
            },
            "telemetry": False,
            "storage": {"dir": str(folder / "storage"), "durability": "os", "min_free_bytes": 0},
            "epoch": "100ms",
        } | more
        self.ledger = Ledger()
        self.gateway = Gateway(GatewaySettings.model_validate_json(json.dumps(given)), ledger=self.ledger)
        self._port = self.gateway.start().http
        self._thread = threading.Thread(target=self.gateway.run)
        self._thread.start()

    def send(self, spans: list[Span]) -> None:
        with OtlpClient(OtlpClientSettings.http(f"http://127.0.0.1:{self._port}")) as client:
            client.send(spans_batch(spans))

    def stop(self) -> None:
        self.gateway.drain.request()
        self._thread.join(60)


def test_span_metrics_by_remote_write(tmp_path: Path) -> None:
    """Through a restart of the gateway; spans themselves are for others, and here counted as dropped."""
    rng = random.Random(7)
    [port] = free_ports(1)
    with run_prometheus(tmp_path / "prometheus", port) as server:
        destination = {"prometheus": {"metrics": {"endpoint": server.write_url}}}
        sent: list[Span] = []
        ledgers = []
        for _ in range(2):
            running = _Running(tmp_path, **destination)
            try:
                spans = _spans(rng, 300)
                running.send(spans)
                sent += spans
                _expect(server, sent)
            finally:
                running.stop()
            ledgers.append(totals(running.ledger))
        # Four series' labels of one kind; the target has no more attributes than those that name it.
        assert server.value("count(target_info)") is None
    assert sum(found.delivered for found in ledgers) > 0
    assert sum(found.dropped for found in ledgers) == len(sent)


def test_span_metrics_scraped(tmp_path: Path) -> None:
    """The same numbers where Prometheus comes for them, at the port that shows the gateway's own metrics."""
    rng = random.Random(8)
    [port] = free_ports(1)
    exposed = {"telemetry": {"endpoint": "127.0.0.1:0"}, "expose": {}}
    running = _Running(tmp_path, **exposed)
    try:
        assert running.gateway.telemetry is not None
        address = running.gateway.telemetry.address
        assert address is not None
        spans = _spans(rng, 300)
        running.send(spans)
        with run_prometheus(tmp_path / "prometheus", port, targets=(address,)) as server:
            _expect(server, spans)
            assert server.value("telflow_account_balanced") == 1
    finally:
        running.stop()
