"""A destination that is not ours: official gRPC services, Python's own HTTP server, and a wire that can break."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import zstandard
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as traces

from telflow import Signal
from tests.connectors.otlp.senders import RESPONSES
from tests.oracle import REQUESTS
from tests.otlp_json import parse

_UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.decompress,
    "zstd": lambda body: zstandard.ZstdDecompressor().decompress(body),
}
_SERVICES: dict[Signal, tuple[type, Callable[[Any, Any], None]]] = {
    Signal.TRACES: (traces.TraceServiceServicer, traces.add_TraceServiceServicer_to_server),
    Signal.METRICS: (metrics.MetricsServiceServicer, metrics.add_MetricsServiceServicer_to_server),
    Signal.LOGS: (logs.LogsServiceServicer, logs.add_LogsServiceServicer_to_server),
}


@dataclass(frozen=True)
class Say:
    """An answer: a status that is no success, or a success with something to say.

    Attributes:
        code: gRPC's status.
        http_status: HTTP's.
        retry_after_s: RetryInfo, Retry-After.
        rejected: Records of a partial success.
    """

    code: grpc.StatusCode = grpc.StatusCode.OK
    http_status: int = 200
    retry_after_s: float | None = None
    rejected: int = 0


@dataclass
class Arrived:
    """A request as it arrived."""

    at_s: float
    signal: Signal
    message: Any
    headers: dict[str, str]
    body_bytes: int
    peer: str


@dataclass
class Destination:
    """What a test knows of its destination.

    Attributes:
        script: Answers in order; success when it is empty.
        arrived: Every request, whatever it was answered.
        before_answer: Called with each request before it is answered.
    """

    script: list[Say] = field(default_factory=list)
    arrived: list[Arrived] = field(default_factory=list)
    before_answer: Callable[[], object] = lambda: None
    grpc_port: int = 0
    http_port: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def port(self, protocol: str) -> int:
        return self.grpc_port if protocol == "grpc" else self.http_port

    def take(self, signal: Signal, message: Any, headers: dict[str, str], body_bytes: int, peer: str) -> Say:
        """Note a request; returns what is to be answered."""
        with self._lock:
            self.arrived.append(Arrived(time.monotonic(), signal, message, headers, body_bytes, peer))
            say = self.script.pop(0) if self.script else Say()
        self.before_answer()
        return say


def _response(signal: Signal, say: Say) -> Any:
    response = RESPONSES[signal]()
    if say.rejected:
        part = response.partial_success
        setattr(part, next(f.name for f in part.DESCRIPTOR.fields if f.name.startswith("rejected")), say.rejected)
        part.error_message = "too old"
    return response


def _status(say: Say) -> status_pb2.Status:
    status = status_pb2.Status(code=say.code.value[0], message="no")
    if say.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(say.retry_after_s * 1e9))
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        status.details.append(detail)
    return status


def _grpc_server(to: Destination, credentials: grpc.ServerCredentials | None) -> tuple[grpc.Server, int]:
    server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", -1)])
    for signal, (servicer, add) in _SERVICES.items():

        def export(_: Any, request: Any, context: Any, signal: Signal = signal) -> Any:
            say = to.take(signal, request, dict(context.invocation_metadata()), request.ByteSize(), context.peer())
            if say.code is not grpc.StatusCode.OK:
                context.set_trailing_metadata((("grpc-status-details-bin", _status(say).SerializeToString()),))
                context.abort(say.code, "no")
            return _response(signal, say)

        add(type("Service", (servicer,), {"Export": export})(), server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server, port


def _http_server(to: Destination, tls: ssl.SSLContext | None) -> http.server.ThreadingHTTPServer:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            signal = Signal(self.path.removeprefix("/v1/"))
            content = _UNPACK[self.headers.get("Content-Encoding", "identity")](body)
            json = self.headers["Content-Type"] == "application/json"
            message = parse(signal, content) if json else REQUESTS[signal].FromString(content)
            headers = {name.lower(): value for name, value in self.headers.items()}
            say = to.take(signal, message, headers, len(content), "{}:{}".format(*self.client_address))
            answer = (_response(signal, say) if say.http_status == 200 else _status(say)).SerializeToString()
            self.send_response(say.http_status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            if say.retry_after_s is not None:
                self.send_header("Retry-After", str(round(say.retry_after_s)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 - the name it has there

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A sender that does not trust us hangs up: nothing to print."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


@contextmanager
def destination(
    *script: Say, credentials: grpc.ServerCredentials | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Destination]:
    """Both servers, answering as the script says."""
    to = Destination(list(script))
    rpc, to.grpc_port = _grpc_server(to, credentials)
    web = _http_server(to, tls)
    to.http_port = web.server_port
    try:
        yield to
    finally:
        rpc.stop(None).wait()
        web.shutdown()
        web.server_close()


class Wire:
    """Passes bytes on to a port, counts them, and breaks when told to."""

    def __init__(self, to_port: int, *, break_first: bool = False) -> None:
        self._to_port = to_port
        self._break = break_first
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self.sent_bytes = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.create_connection(("127.0.0.1", self._to_port))
            ends = [(near, far, True), (far, near, False)]
            for source, sink, outward in ends:
                threading.Thread(target=self._pass, args=(source, sink, outward), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, outward: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if outward:
                    self.sent_bytes += len(data)
                    if self._break and self.sent_bytes > 2000:  # in the middle of a request
                        self._break = False
                        break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
