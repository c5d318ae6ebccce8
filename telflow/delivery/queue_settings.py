"""Options of a sending queue, under the names that users of the OpenTelemetry Collector know."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from telflow.delivery.circuit_breaker import CircuitBreakerSettings
from telflow.delivery.retry import RetrySettings
from telflow.settings import Duration, Settings

__all__ = ["DeliverySettings", "SendingQueueSettings"]


class SendingQueueSettings(Settings):
    """What waits for a destination, and how many requests are on their way to it."""

    enabled: bool = True
    """Off: nothing is kept on disk; each epoch ends only when the destination has its records, so that one that is down
    holds the flow up."""

    num_consumers: int = Field(default=10, ge=1, le=1000)
    """Requests on their way at a time; threads are started as they are needed."""

    memory_size: int = Field(default=64 << 20, ge=1 << 20)
    """Bytes of undelivered data in memory; beyond it they go to the disk, or the flow waits where there is none."""

    queue_size: int = Field(default=2 << 30, ge=1 << 20)
    """Bytes of undelivered requests on disk, compressed; needs the gateway's `storage`."""

    block_on_overflow: bool = True
    """When `queue_size` is reached: true, the flow waits, and in the end the receivers refuse data with a hint to
    retry; false, what has no room is dropped and counted, so that the other destinations go on."""


class DeliverySettings(Settings):
    """How undelivered data is kept, and delivery repeated."""

    sending_queue: SendingQueueSettings = SendingQueueSettings()
    """What waits for the destination."""

    retry_on_failure: RetrySettings = RetrySettings()
    """How refused or unanswered requests are repeated."""

    circuit_breaker: CircuitBreakerSettings = CircuitBreakerSettings()
    """When a destination that fails is left alone for a while."""

    shutdown_timeout: Duration = Field(default=timedelta(seconds=10), ge=timedelta())
    """How long a stopping gateway goes on delivering. What is undelivered then stays on disk for the next run; without
    a disk it is dropped and counted."""
