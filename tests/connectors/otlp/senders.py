"""Senders that are not ours: the official gRPC stubs, and plain HTTP with protobuf or JSON bodies."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass, field
from typing import Any, ClassVar

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from telflow import Signal
from tests.otlp_json import to_dict

RESPONSES: dict[Signal, Any] = {
    Signal.TRACES: ExportTraceServiceResponse,
    Signal.METRICS: ExportMetricsServiceResponse,
    Signal.LOGS: ExportLogsServiceResponse,
}
STUBS: dict[Signal, Any] = {
    Signal.TRACES: TraceServiceStub,
    Signal.METRICS: MetricsServiceStub,
    Signal.LOGS: LogsServiceStub,
}
SERVICES = {
    Signal.TRACES: "opentelemetry.proto.collector.trace.v1.TraceService",
    Signal.METRICS: "opentelemetry.proto.collector.metrics.v1.MetricsService",
    Signal.LOGS: "opentelemetry.proto.collector.logs.v1.LogsService",
}
REJECTED = {
    Signal.TRACES: "rejected_spans",
    Signal.METRICS: "rejected_data_points",
    Signal.LOGS: "rejected_log_records",
}
CONTENT_TYPES = {"protobuf": "application/x-protobuf", "json": "application/json"}


@dataclass
class Reply:
    """What a sender was told.

    Attributes:
        code: ``OK`` or another gRPC status; for HTTP the number of the status.
        response: The Export*ServiceResponse of a success.
        status: The google.rpc.Status of a refusal.
        headers: HTTP's; for gRPC the trailing metadata.
        body: HTTP's body as it came.
    """

    code: str | int
    response: Any = None
    status: status_pb2.Status = field(default_factory=status_pb2.Status)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def ok(self) -> bool:
        return self.code in {"OK", 200}

    def detail(self, kind: type) -> Any:
        """The one detail of the Status, which is of this kind."""
        (packed,) = self.status.details
        found = kind()
        assert packed.Unpack(found)
        return found

    @property
    def retry_after_s(self) -> float | None:
        """Seconds of RetryInfo."""
        if not self.status.details:
            return None
        return float(self.detail(error_details_pb2.RetryInfo).retry_delay.ToNanoseconds()) / 1e9


class GrpcSender:
    """The official stubs, which is what SDKs send with."""

    name = "grpc"
    codes: ClassVar[dict[str, str | int]] = {
        "undecodable": "INVALID_ARGUMENT",
        "overloaded": "UNAVAILABLE",
        "large": "RESOURCE_EXHAUSTED",
        "throttled": "RESOURCE_EXHAUSTED",
        "nobody": "UNAUTHENTICATED",
        "forbidden": "PERMISSION_DENIED",
    }

    def __init__(self, credentials: grpc.ChannelCredentials | None = None, server_name: str | None = None) -> None:
        self._credentials = credentials
        self._options: list[tuple[str, Any]] = [("grpc.max_send_message_length", -1)]
        if server_name is not None:
            self._options.append(("grpc.ssl_target_name_override", server_name))

    def channel(self, port: int) -> grpc.Channel:
        if self._credentials is None:
            return grpc.insecure_channel(f"127.0.0.1:{port}", self._options)
        return grpc.secure_channel(f"127.0.0.1:{port}", self._credentials, self._options)

    def send(self, ports: Any, message: Any, signal: Signal, **call: Any) -> Reply:
        """Send a message through the stub, or bytes through a call to the same method; `call` goes to gRPC."""
        with self.channel(ports.grpc_port) as channel:
            if isinstance(message, bytes):
                export = channel.unary_unary(f"/{SERVICES[signal]}/Export", None, RESPONSES[signal].FromString)
            else:
                export = STUBS[signal](channel).Export
            try:
                return Reply("OK", export(message, timeout=60, **call))
            except grpc.RpcError as error:
                failed: Any = error
                trailer = dict(failed.trailing_metadata() or ())
                status = status_pb2.Status.FromString(trailer.pop("grpc-status-details-bin", b""))
                if status.code:
                    assert (status.code, status.message) == (failed.code().value[0], failed.details())
                return Reply(failed.code().name, None, status, trailer)


class HttpSender:
    """Python's own HTTP client; bodies by the official library."""

    codes: ClassVar[dict[str, str | int]] = {
        "undecodable": 400,
        "overloaded": 503,
        "large": 413,
        "throttled": 429,
        "nobody": 401,
        "forbidden": 403,
    }

    def __init__(self, encoding: str = "protobuf", tls: ssl.SSLContext | None = None) -> None:
        self.encoding = encoding
        self.name = f"http/{encoding}"
        self._tls = tls

    def body(self, message: Any) -> bytes:
        if isinstance(message, bytes):
            return message
        if self.encoding == "json":
            return json.dumps(to_dict(message)).encode()
        return bytes(message.SerializeToString())

    def connection(self, port: int) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        return http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=self._tls)

    def send(
        self,
        ports: Any,
        message: Any,
        signal: Signal,
        *,
        path: str | None = None,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        connection: http.client.HTTPConnection | None = None,
    ) -> Reply:
        """Send a message, or bytes as they are; on a connection of its own unless one is given."""
        used = connection or self.connection(ports.http_port)
        try:
            given = {"Content-Type": CONTENT_TYPES[self.encoding], **(headers or {})}
            used.request(method, path or f"/v1/{signal}", self.body(message), given)
            answer = used.getresponse()
            body = answer.read()
        finally:
            if connection is None:
                used.close()
        return self._reply(signal, answer, body)

    @staticmethod
    def _reply(signal: Signal, answer: http.client.HTTPResponse, body: bytes) -> Reply:
        response, status = None, status_pb2.Status()
        what: Any = status
        if answer.status == 200:
            what = response = RESPONSES[signal]()
        if answer.headers.get_content_type() == "application/json":
            json_format.Parse(body, what)
        elif answer.status != 204:
            what.ParseFromString(body)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Reply(answer.status, response, status, headers, body)


Sender = GrpcSender | HttpSender
SENDERS: list[Sender] = [GrpcSender(), HttpSender("protobuf"), HttpSender("json")]
