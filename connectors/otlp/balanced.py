"""The transport of an exporter with one endpoint, or with several and a strategy."""

from __future__ import annotations

from collections.abc import Callable

from connectors.otlp.settings import OtlpConnectionSettings, OtlpExporterSettings
from connectors.otlp.transport import connect
from telflow.delivery.balancing import Balancer, HashRouter
from telflow.delivery.clock import Clock
from telflow.delivery.endpoints import EndpointPool
from telflow.delivery.routing_key import RoutingKey
from telflow.delivery.transport import Router, Transport

__all__ = ["connect_all"]


def connect_all(
    settings: OtlpExporterSettings,
    *,
    connect: Callable[[OtlpConnectionSettings], Transport] = connect,
    clock: Clock | None = None,
) -> Transport | Router:
    """Return what carries an exporter's requests.

    Args:
        settings: Its endpoint or endpoints.
        connect: Makes the connection to one of them.
        clock: What health checks are timed by.

    Raises:
        ConfigError: A certificate cannot be read.
    """
    if not settings.endpoints:
        return connect(settings)
    transports = [(endpoint, connect(settings.alone(endpoint))) for endpoint in settings.endpoints]
    pool = EndpointPool(transports, settings.health_check, name=settings.where, clock=clock)
    if settings.strategy == "consistent_hash":
        return HashRouter(pool, RoutingKey(settings.hash_key))
    return Balancer(pool, settings.strategy)
