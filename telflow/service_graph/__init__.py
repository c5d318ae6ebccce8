"""The service graph: requests between services, by the spans at both ends."""

from telflow.service_graph.edge_metrics import EdgeMetrics
from telflow.service_graph.halves import NO_TENANT, halves_by_key
from telflow.service_graph.pairing import Pairing
from telflow.service_graph.settings import ServiceGraphSettings

__all__ = ["NO_TENANT", "EdgeMetrics", "Pairing", "ServiceGraphSettings", "halves_by_key"]
