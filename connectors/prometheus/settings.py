"""Options of the Prometheus remote write exporter, mostly named as in the Collector's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, StringConstraints, model_validator

from connectors.otlp.settings import TlsClientSettings
from connectors.prometheus.names import label_name
from telflow.delivery.queue_settings import DeliverySettings
from telflow.settings import Duration, Settings, Switchable

__all__ = ["Label", "LabelSettings", "PrometheusExporterSettings"]

Label = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]


class LabelSettings(Settings):
    """How metrics of OpenTelemetry are named and labelled for Prometheus."""

    add_metric_suffixes: bool = True
    """Let names end with the unit and, for counters, with `_total`."""

    scope_labels: bool = True
    """Say which library made a metric: `otel_scope_name`, `otel_scope_version`."""

    resource_labels: tuple[str, ...] = ()
    """Attributes of the resource that become labels of all its series; the others are in `target_info`."""

    tenant_label: Label | None = "tenant"
    """Label with the tenant's name; null: none, then series of two tenants that are alike otherwise are one."""

    external_labels: Mapping[Label, str] = {}
    """Labels that all series have besides."""

    @cached_property
    def promoted(self) -> tuple[str, ...]:
        """`resource_labels` as names of labels."""
        return tuple(label_name(key) for key in self.resource_labels)


class PrometheusExporterSettings(LabelSettings, DeliverySettings):
    """Sends metrics to Prometheus, or to what takes its remote write (Mimir, Thanos, VictoriaMetrics)."""

    endpoint: str
    """URL, for example ``http://localhost:9090/api/v1/write``."""

    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """Headers of every request, for example ``authorization``. Values are kept out of logs."""

    tls: Switchable[TlsClientSettings] = None
    """How to use TLS, which an ``https://`` endpoint turns on too."""

    timeout: Duration = Field(default=timedelta(seconds=10), gt=timedelta())
    """A request not answered after this time has failed and is repeated."""

    max_request_bytes: int = Field(default=1 << 20, ge=1024)
    """Metrics in one request, counted as OTLP bytes; larger batches are split."""

    tenant_header: str | None = Field(default=None, min_length=1)
    """Header with the tenant's name, for example ``X-Scope-OrgID``; each tenant's metrics are sent by themselves."""

    target_info: bool = True
    """Send `target_info`, with the attributes of each resource, and what families are (type, unit, help)."""

    @property
    def where(self) -> str:
        """The endpoint for a person to read."""
        return self.endpoint

    @model_validator(mode="after")
    def _check(self) -> Self:
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
            raise ValueError(
                f"endpoint: expected a URL such as http://localhost:9090/api/v1/write, got {self.endpoint!r}"
            )
        if self.tls is not None and parts.scheme == "http":
            raise ValueError("endpoint: expected https:// together with tls, got http://")
        queue = self.sending_queue
        if "num_consumers" in queue.model_fields_set and queue.num_consumers != 1:
            raise ValueError(
                f"sending_queue.num_consumers: expected 1, got {queue.num_consumers}: Prometheus refuses a series' "
                "samples that overtake each other"
            )
        return self
