"""`generate`: seeded, realistic load, sent over OTLP to anything that takes it."""

from __future__ import annotations

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from pydantic import Field, SecretStr, model_validator

from connectors.generator import GeneratorSettings, GeneratorSource
from connectors.otlp import OtlpClientSettings, OtlpClientSink
from telflow.accounting import LEDGER, Ledger
from telflow.batch import TelemetryBatch
from telflow.settings import Settings

__all__ = ["GenerateSettings", "build"]

_MOST_TENANTS = 64


class GenerateSettings(Settings):
    """What to send where."""

    generator: GeneratorSettings = GeneratorSettings()
    """The load."""

    exporter: OtlpClientSettings
    """Where it goes."""

    tenant_header: str = Field(default="x-scope-orgid", min_length=1)
    """Header that names the tenant of a request, when the load has more than one."""

    @model_validator(mode="after")
    def _few_tenants(self) -> GenerateSettings:
        tenants = self.generator.tenants
        if tenants > _MOST_TENANTS:
            raise ValueError(f"tenants: expected at most {_MOST_TENANTS}, each has its own connection; got {tenants}")
        return self


def build(settings: GenerateSettings, *, ledger: Ledger = LEDGER, flow_id: str = "generate") -> Dataflow:
    """Return the dataflow that sends the load; it ends after `generator.total_records`.

    Args:
        settings: What to send where.
        ledger: Counts what was made as received, and what arrived as delivered.
        flow_id: Name of the dataflow.
    """
    flow = Dataflow(flow_id)
    load = op.input("load", flow, GeneratorSource(settings.generator, ledger=ledger))
    if settings.generator.tenants <= 1:
        op.output("send", load, OtlpClientSink(settings.exporter, ledger=ledger))
        return flow
    for number in range(1, settings.generator.tenants + 1):
        tenant = f"tenant-{number}"
        headers = {**settings.exporter.headers, settings.tenant_header: SecretStr(tenant)}
        exporter = settings.exporter.model_copy(update={"headers": headers})
        own = op.filter(f"of_{tenant}", load, _IsOf(tenant))
        op.output(f"send_{tenant}", own, OtlpClientSink(exporter, ledger=ledger))
    return flow


class _IsOf:
    """Whether a batch belongs to a tenant."""

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant

    def __call__(self, batch: TelemetryBatch) -> bool:
        return bool(batch.resources["tenant"][0].as_py() == self._tenant)
