"""What OTLP prescribes besides the messages: names, paths, and how a refusal is said (OTLP specification 1.9).

Both servers answer through one `Refusal`, so a sender hears the same over gRPC and over HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc
from google.protobuf import any_pb2, duration_pb2, json_format
from google.rpc import error_details_pb2, status_pb2

from telflow.codec import Encoding
from telflow.errors import DecodeError, DeliveryError
from telflow.schema import Signal

__all__ = [
    "HTTP_PATHS",
    "RPC_METHODS",
    "ExportHandler",
    "ExportRequest",
    "OnRefusal",
    "Refusal",
    "ignore",
    "resolve_tenant",
    "retry_after_s",
    "status_bytes",
]

_SERVICES = {Signal.TRACES: "trace.v1.Trace", Signal.METRICS: "metrics.v1.Metrics", Signal.LOGS: "logs.v1.Logs"}

RPC_METHODS = {
    signal: f"/opentelemetry.proto.collector.{service}Service/Export" for signal, service in _SERVICES.items()
}
"""Full gRPC method name of each signal."""

HTTP_PATHS = {signal: f"/v1/{signal}" for signal in Signal}
"""Default URL path of each signal."""

_LONGEST_TENANT = 256
_REASONS = {
    400: "malformed",
    401: "unauthenticated",
    403: "forbidden",
    404: "unknown path",
    405: "wrong method",
    408: "too slow",
    413: "too large",
    415: "unknown content",
    429: "throttled",
    500: "internal error",
    503: "overloaded",
}


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """One request as it came, its payload uncompressed.

    Attributes:
        signal: Which service or path it was sent to.
        encoding: How the payload is written.
        payload: The Export*ServiceRequest.
        tenant: Value of the tenant header; None when there is none.
        peer: The sender's address.
    """

    signal: Signal
    encoding: Encoding
    payload: bytes
    tenant: str | None
    peer: str


class ExportHandler(Protocol):
    """What a server does with requests. Called from several threads."""

    def admit(self, payload_bytes: int) -> None:
        """Refuse a request of this size before its body is read.

        Raises:
            Refusal: There is no room for it.
        """
        ...

    def handle(self, request: ExportRequest) -> bytes:
        """Take a request over.

        Returns:
            The Export*ServiceResponse in the request's encoding; empty bytes are the plain success of both.

        Raises:
            Refusal: What the sender is told instead.
        """
        ...


class Refusal(Exception):  # noqa: N818 - an answer, not a fault of ours
    """A request is not accepted, said so that the sender knows what to do next.

    Attributes:
        code: The gRPC status.
        http_status: The HTTP status.
        message: Why, for the sender's developer.
        violations: (field path, description) of each place in the request that is wrong.
        retry_after_s: Seconds after which the same request may be accepted; None when it never will.
        challenge: How to identify, for HTTP's WWW-Authenticate; None when that is not what is wrong.
        records: How many records the request has, where its payload was there to be counted.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        http_status: int,
        message: str,
        *,
        violations: Sequence[tuple[str, str]] = (),
        retry_after_s: float | None = None,
        challenge: str | None = None,
    ) -> None:
        super().__init__(message)
        self.challenge = challenge
        self.code = code
        self.http_status = http_status
        self.message = message
        self.violations = violations
        self.retry_after_s = retry_after_s
        self.records = 0

    @property
    def reason(self) -> str:
        """Why, in a fixed word or two, to be counted by.

        >>> Refusal.forbidden("certificates of example.test may not send here").reason
        'forbidden'
        """
        return _REASONS.get(self.http_status, "other")

    @classmethod
    def undecodable(cls, error: DecodeError) -> Refusal:
        """The payload is not OTLP; repeating it is no use."""
        where = [] if error.offset is None else [f"byte {error.offset}"]
        description = " at ".join([error.reason, *where])
        return cls(grpc.StatusCode.INVALID_ARGUMENT, 400, str(error), violations=[(error.path, description)])

    @classmethod
    def overloaded(cls, error: DeliveryError) -> Refusal:
        """There is no room now."""
        return cls(grpc.StatusCode.UNAVAILABLE, 503, str(error), retry_after_s=error.retry_after_s or 1.0)

    @classmethod
    def throttled(cls, error: DeliveryError) -> Refusal:
        """The sender is over its quota; others are served."""
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        # Without RetryInfo a sender takes RESOURCE_EXHAUSTED for final (OTLP specification, "Failures").
        return cls(code, 429, str(error), retry_after_s=error.retry_after_s or 1.0)

    @classmethod
    def unauthenticated(cls, message: str, *, challenge: str = "Bearer") -> Refusal:
        """Nobody knows who the sender is."""
        return cls(grpc.StatusCode.UNAUTHENTICATED, 401, message, challenge=challenge)

    @classmethod
    def forbidden(cls, message: str) -> Refusal:
        """The sender is known, and may not do this."""
        return cls(grpc.StatusCode.PERMISSION_DENIED, 403, message)

    @classmethod
    def internal(cls) -> Refusal:
        """A fault of ours; its description stays in our log."""
        return cls(grpc.StatusCode.INTERNAL, 500, "internal error; the receiver's log has the details")

    def status(self) -> status_pb2.Status:
        """Return the google.rpc.Status that the specification prescribes."""
        details: list[any_pb2.Any] = []
        if self.violations:
            bad = error_details_pb2.BadRequest()
            for field, description in self.violations:
                bad.field_violations.add(field=field, description=description)
            details.append(_packed(bad))
        if self.retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(round(self.retry_after_s * 1e9))
            details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
        return status_pb2.Status(code=self.code.value[0], message=self.message, details=details)


OnRefusal = Callable[[Signal | None, Refusal], object]
"""Told of a refused request: what it was to carry, None where that is unknown, and why it was refused."""


def ignore(signal: Signal | None, refusal: Refusal) -> None:
    """Tell nobody of a refused request."""


def status_bytes(status: status_pb2.Status, encoding: Encoding) -> bytes:
    """Write a google.rpc.Status in the encoding of the request it answers."""
    if encoding == "json":
        return json_format.MessageToJson(status, indent=None).encode()
    return bytes(status.SerializeToString())


def retry_after_s(status: status_pb2.Status) -> float | None:
    """Return the seconds a Status's RetryInfo asks to wait, or None when it has none."""
    for detail in status.details:
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            info = error_details_pb2.RetryInfo()
            detail.Unpack(info)
            return float(info.retry_delay.ToNanoseconds() / 1e9)
    return None


def resolve_tenant(header: str | None, default: str | None) -> str | None:
    """Return whose data a request carries.

    Args:
        header: Value of the tenant header; None when the request has none or it is not asked for.
        default: The tenant of requests that do not say.

    Raises:
        Refusal: The header's value cannot be a tenant's name.
    """
    if header is None:
        return default
    if not header or len(header) > _LONGEST_TENANT or not header.isprintable():
        raise Refusal(
            grpc.StatusCode.INVALID_ARGUMENT,
            400,
            f"tenant header: expected 1 to {_LONGEST_TENANT} printable characters",
        )
    return header


def _packed(message: error_details_pb2.BadRequest | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
