"""A gateway in a cluster under load, for tests that hurt it: what the senders were told against what came out.

Senders go round together: each request of a round goes over a connection of its own, so usually to another worker.
There are two kinds of spans. *Single* ones are a trace each, and always sampled: what the archive holds of them and
what span metrics count must agree. *Whole* ones come in traces of four, one span in each request of a round, and are
sampled when all four are there: the archive must have four or none.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
import pyarrow as pa
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from connectors.archive import query
from connectors.otlp import NullOtlpServer
from connectors.otlp.settings import GrpcServerSettings
from telflow.codec import decode
from telflow.schema import Signal
from tests.supervised import Supervised

__all__ = ["Destination", "Found", "Load", "free_port", "gateway_settings"]

CONNECTIONS = 4
SINGLE = 10
WHOLE = 5
TRACE = CONNECTIONS
DECISION_WAIT_S = 8
_DEADLINE_S = 6.0
_PACE_S = 0.02
_START_UNIX_NANO = 1_760_000_000 * 10**9
_TEN_DAYS = 10 * 86_400 * 10**9
_LAST = 2**40
_WHOLE = b"\xff" * 8  # what the ids of whole traces begin with
_SETTINGS = """
receivers: {{otlp: {{grpc: {{endpoint: "{address}:{own}"}}, http: false}}}}
storage: {{dir: "{folder}", durability: os}}
telemetry: {{endpoint: "127.0.0.1:0"}}
epoch: 500ms
span_metrics: {{temporality: delta, lateness: 2d, max_ahead: 36500d, idle_timeout: null}}
tail_sampling:
  decision_wait: {wait}s
  policies:
    - {{type: numeric_attribute, key: number, min_value: 0, max_value: 9000000000000000000}}
    - {{type: span_count, min_spans: {trace}}}
exporters: {{out: {{endpoint: "127.0.0.1:{port}", retry_on_failure: {{initial_interval: 50ms, max_interval: 500ms}}}}}}
archive: {{path: archive, flush_interval: 2s}}
"""


def gateway_settings(own: int, port: int, *, folder: str = "state", address: str = "127.0.0.1") -> str:
    """Settings of a gateway that receives on one port and sends to another."""
    return _SETTINGS.format(own=own, port=port, folder=folder, address=address, wait=DECISION_WAIT_S, trace=TRACE)


def free_port() -> int:
    """A port that nobody uses now."""
    with NullOtlpServer(http=None) as server:
        return server.grpc_port


class Destination:
    """What gateways send to; it may go away and come back."""

    def __init__(self) -> None:
        self._servers = [NullOtlpServer(keep=True, http=None)]
        self._servers[0].start()
        self.port = self._servers[0].grpc_port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Go away."""
        self._servers[-1].stop()

    def come_back(self) -> None:
        """Be there again, at the same port."""
        server = NullOtlpServer(keep=True, http=None, grpc=GrpcServerSettings(endpoint=f"127.0.0.1:{self.port}"))
        server.start()
        self._servers.append(server)

    def single(self) -> Counter[int]:
        """How often each single span came."""
        found: Counter[int] = Counter()
        for request in (r for server in self._servers for r in server.kept if r.signal is Signal.TRACES):
            numbers = decode(request.payload, Signal.TRACES).attribute("number", type=pa.int64())
            found.update(number for number in numbers.to_pylist() if number is not None)
        return found


@dataclass
class Found:
    """What came of it.

    Attributes:
        acknowledged: Single spans whose request was answered with success.
        delivered: Single spans at the destination.
        archived: Single spans in the archive.
        counted: How many single spans the archive's metrics have counted.
        whole: Whole traces all of whose requests were answered with success.
        unsure: The other whole traces that were sent.
        traces: Spans of whole traces in the archive, by trace.
    """

    acknowledged: set[int] = field(default_factory=set)
    delivered: Counter[int] = field(default_factory=Counter)
    archived: Counter[int] = field(default_factory=Counter)
    counted: int = 0
    whole: set[int] = field(default_factory=set)
    unsure: set[int] = field(default_factory=set)
    traces: Counter[int] = field(default_factory=Counter)

    @property
    def broken(self) -> list[str]:
        """Which promises were broken, with an example each."""
        promises: dict[str, Iterable[object]] = {
            "every acknowledged span is delivered": self.acknowledged - self.delivered.keys(),
            "every acknowledged span is archived": self.acknowledged - self.archived.keys(),
            "no span is archived twice": (number for number, times in self.archived.items() if times > 1),
            "windows count every archived span once": {self.counted} - {len(self.archived)},
            "every whole trace is kept": self.whole - self.traces.keys(),
            "no trace is half kept": ((n, times) for n, times in self.traces.items() if times != TRACE),
        }
        broken = {promise: list(itertools.islice(found, 5)) for promise, found in promises.items()}
        return [f"{promise}: {examples}" for promise, examples in broken.items() if examples]


class Load:
    """Senders that go on whatever happens, and remember what they were told; `with` runs them."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses
        self._numbers = itertools.count()
        self._traces = itertools.count()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self.rounds = 0
        self._found = Found()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Send nothing more."""
        self._over.set()
        self._thread.join()

    def more(self, rounds: int = 20, timeout_s: float = 60) -> None:
        """Wait for so many rounds in which everything was acknowledged."""
        until, deadline_s = self.rounds + rounds, time.monotonic() + timeout_s
        while self.rounds < until:
            assert time.monotonic() < deadline_s, f"{self.rounds} rounds"
            time.sleep(0.05)

    def last(self) -> None:
        """Send a span from far later, by which every window before it closes.

        Only when what was sent before has entered the flow: it overtakes what lies in the logs of other workers, and
        would make that late.
        """
        request, _ = _request([_LAST], [], 0)
        with grpc.insecure_channel(self._addresses[0]) as channel:
            TraceServiceStub(channel).Export(request, timeout=30, wait_for_ready=True)

    def compared(self, destination: Destination, *archives: Path) -> Found:
        """What came of it."""
        found = self._found
        found.delivered = destination.single()
        for archive in archives:
            spans = query(archive, "select trace_id, span_id from traces")
            for trace, span in zip(spans["trace_id"], spans["span_id"], strict=True):
                if trace.startswith(_WHOLE):
                    found.traces[int.from_bytes(trace[8:])] += 1
                elif int.from_bytes(span) != _LAST + 1:
                    found.archived[int.from_bytes(span) - 1] += 1
            calls = query(
                archive,
                "select sum(value_int) as calls from metrics "
                "where name = 'traces.span.metrics.calls' and service_name = 'single'",
            )
            found.counted += int(calls["calls"][0] or 0)
        found.delivered.pop(_LAST, None)
        return found

    def _send(self) -> None:
        options = [("grpc.max_reconnect_backoff_ms", 300), ("grpc.use_local_subchannel_pool", 1)]
        channels = [
            grpc.insecure_channel(self._addresses[n % len(self._addresses)], options) for n in range(CONNECTIONS)
        ]
        stubs = [TraceServiceStub(channel) for channel in channels]
        while not self._over.wait(_PACE_S):
            whole = [next(self._traces) for _ in range(WHOLE)]
            sent = []
            for place, stub in enumerate(stubs):
                request, numbers = _request([next(self._numbers) for _ in range(SINGLE)], whole, place)
                sent.append((numbers, stub.Export.future(request, timeout=_DEADLINE_S)))
            answered = 0
            for numbers, answer in sent:
                if answer.exception() is None:
                    self._found.acknowledged.update(numbers)
                    answered += 1
            good = answered == CONNECTIONS
            (self._found.whole if good else self._found.unsure).update(whole)
            self.rounds += good
        for channel in channels:
            channel.close()


def _request(numbers: list[int], whole: list[int], place: int) -> tuple[Any, list[int]]:
    """A request of single spans, 1 ms apart in event time, and of one span of each whole trace."""
    request: Any = ExportTraceServiceRequest()
    single = _scope(request, "single")
    for number in numbers:
        start = _START_UNIX_NANO + (number * 10**6 if number != _LAST else _TEN_DAYS)
        identity = number + 1
        span = single.spans.add(name="single", trace_id=identity.to_bytes(16), span_id=identity.to_bytes(8))
        span.start_time_unix_nano, span.end_time_unix_nano = start, start + 1000
        span.attributes.add(key="number").value.int_value = number
    traced = _scope(request, "whole")
    for number in whole:
        start = _START_UNIX_NANO + number * 10**6
        span = traced.spans.add(name="whole", trace_id=_WHOLE + number.to_bytes(8), span_id=(place + 1).to_bytes(8))
        span.start_time_unix_nano, span.end_time_unix_nano = start, start + 1000
    return request, numbers


def _scope(request: Any, service: str) -> Any:
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    return resource.scope_spans.add()


def gateway(folder: Path, *arguments: str, socket: str = "gateway") -> Supervised:
    """Run `telflow.yaml` of a folder."""
    return Supervised(folder, *arguments, socket=socket, flow=folder / "telflow.yaml")
