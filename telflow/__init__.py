"""telflow's core: what every operator, connector and flow stands on."""

from telflow.batch import TelemetryBatch
from telflow.schema import Signal

__all__ = ["Signal", "TelemetryBatch"]
