"""What carries OTLP requests: gRPC or HTTP, for threads or for tasks.

A transport neither encodes nor repeats: that is the part of the sending queue, or of the client.
"""

from __future__ import annotations

from typing import Protocol

from connectors.otlp.grpc_transport import AsyncGrpcTransport, GrpcTransport
from connectors.otlp.http_transport import AsyncHttpTransport, HttpTransport
from connectors.otlp.settings import OtlpConnectionSettings
from telflow.delivery.transport import Answer, Transport
from telflow.schema import Signal

__all__ = ["AsyncTransport", "connect", "connect_async"]


class AsyncTransport(Protocol):
    """A connection to one destination, used by the tasks of one event loop."""

    async def send(self, signal: Signal, body: bytes) -> Answer:
        """Send one Export*ServiceRequest and wait for its answer; never raises for what the network does."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


def connect(settings: OtlpConnectionSettings) -> Transport:
    """Return the transport the settings ask for; it connects with the first request.

    Raises:
        ConfigError: A certificate cannot be read.
    """
    return GrpcTransport(settings) if settings.protocol == "grpc" else HttpTransport(settings)


def connect_async(settings: OtlpConnectionSettings) -> AsyncTransport:
    """Return the transport the settings ask for, to be used in the event loop that runs now.

    Raises:
        ConfigError: A certificate cannot be read.
    """
    return AsyncGrpcTransport(settings) if settings.protocol == "grpc" else AsyncHttpTransport(settings)
