"""Options of what a gateway says about itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field, StringConstraints

from connectors.otlp import OtlpClientSettings
from connectors.otlp.settings import Address
from telflow.settings import Duration, Settings, Switchable

__all__ = ["MetricsExportSettings", "TelemetrySettings"]


class MetricsExportSettings(OtlpClientSettings):
    """Sends telflow's own metrics over OTLP, to any backend, Collector or gateway, itself included."""

    interval: Duration = Field(default=timedelta(seconds=60), ge=timedelta(seconds=1))
    """How often. Metrics that could not be sent are not repeated: the next ones hold their values."""


class TelemetrySettings(Settings):
    """What a gateway says about itself: metrics for Prometheus, health, and metrics sent over OTLP."""

    endpoint: Address = "127.0.0.1:8888"
    """Address of `/metrics`, `/healthz` and `/readyz`, which ask for no password: keep it on the loopback interface or
    a private network. Port 0 lets the system choose. If the default's port is taken they are not served, and the log
    says so; for an address of your own that is an error."""

    prefix: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")] = "telflow"
    """Begins every metric's name. With `otelcol` a Collector's dashboards show a gateway's numbers."""

    check_interval: Duration = Field(default=timedelta(seconds=10), ge=timedelta(milliseconds=10))
    """How often the accounts are checked. They are also checked whenever metrics are read."""

    quiet: Duration = Field(default=timedelta(minutes=2), ge=timedelta(milliseconds=10))
    """When nothing has moved for so long, records in flight that nothing holds are an error; longer than a batch may
    wait anywhere in the flow. With an archive four times its `flush_interval` at least."""

    max_tenants: int = Field(default=1000, ge=1)
    """Tenants that are counted apart, the first ones to come; all others are counted together, as tenant ``_other``. A
    bound on what a sender can make the gateway keep by writing ever new names into the tenant header."""

    export: Switchable[MetricsExportSettings] = None
    """Send the same metrics over OTLP; not done when not set."""
