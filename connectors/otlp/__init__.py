"""OTLP, the OpenTelemetry protocol: receiver, exporter, client library, and a server that takes everything."""

from connectors.otlp.async_client import AsyncOtlpClient
from connectors.otlp.client import OtlpClient
from connectors.otlp.client_settings import OtlpClientSettings
from connectors.otlp.client_sink import OtlpClientSink
from connectors.otlp.exporter import OtlpSink
from connectors.otlp.null_server import NullOtlpServer
from connectors.otlp.receiver import BoundPorts, OtlpReceiver
from connectors.otlp.settings import OtlpExporterSettings, OtlpReceiverSettings
from connectors.otlp.shipment import Delivered, UndeliveredError

__all__ = [
    "AsyncOtlpClient",
    "BoundPorts",
    "Delivered",
    "NullOtlpServer",
    "OtlpClient",
    "OtlpClientSettings",
    "OtlpClientSink",
    "OtlpExporterSettings",
    "OtlpReceiver",
    "OtlpReceiverSettings",
    "OtlpSink",
    "UndeliveredError",
]
