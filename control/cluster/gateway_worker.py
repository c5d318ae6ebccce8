"""A gateway as one worker of a cluster."""

from __future__ import annotations

from connectors.otlp import BoundPorts
from connectors.otlp.settings import split_address
from control.cluster.spec import WorkerSpec
from control.gateway_run import Gateway
from control.target import settings_of
from flows.gateway import GatewaySettings
from telflow.placement import Placement

__all__ = ["beside_others", "endpoints", "gateway_of"]


def gateway_of(spec: WorkerSpec) -> Gateway:
    """Return the gateway that a worker runs; nothing is opened.

    Raises:
        ConfigurationError: Its settings are wrong.
    """
    settings, _ = settings_of(spec.target)
    placement = Placement(spec.places, spec.here, spec.index, max(1, len(spec.addresses)))
    return Gateway(beside_others(settings, spec.local_index), placement=placement, recovery_dir=spec.recovery_dir)


def beside_others(settings: GatewaySettings, number: int) -> GatewaySettings:
    """Return settings with which several workers of a host can run at the same time.

    They share the receivers' ports; each has a port of its own for what it says about itself, the given one and those
    after it.

    Args:
        settings: The gateway's.
        number: The worker's number on its host.

    >>> beside_others(GatewaySettings(), 2).telemetry.endpoint
    '127.0.0.1:8890'
    """
    otlp = settings.receivers.otlp.model_copy(update={"reuse_port": True})
    receivers = settings.receivers.model_copy(update={"otlp": otlp})
    telemetry = settings.telemetry
    if telemetry is not None:
        host, port = split_address(telemetry.endpoint)
        shown = f"[{host}]" if ":" in host else host
        own = {"endpoint": f"{shown}:{port + number if port else 0}"}
        given = telemetry.model_fields_set
        telemetry = telemetry.model_copy(update=own)
        telemetry.__pydantic_fields_set__ = given  # whether the port may be taken depends on who has chosen it
    return settings.model_copy(update={"receivers": receivers, "telemetry": telemetry})


def endpoints(gateway: Gateway, ports: BoundPorts) -> dict[str, str]:
    """Return where a started gateway listens, by name."""
    otlp = gateway.settings.receivers.otlp
    found = {
        name: f"{part.endpoint.rpartition(':')[0]}:{port}"
        for name, part, port in (("grpc", otlp.grpc, ports.grpc), ("http", otlp.http, ports.http))
        if part is not None and port is not None
    }
    if gateway.telemetry is not None and gateway.telemetry.address is not None:
        found["telemetry"] = gateway.telemetry.address
    return found
