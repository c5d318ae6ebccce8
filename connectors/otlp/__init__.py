"""OTLP, the OpenTelemetry protocol: receiver, exporter, and a server that takes everything."""

from connectors.otlp.exporter import OtlpSink
from connectors.otlp.null_server import NullOtlpServer
from connectors.otlp.receiver import BoundPorts, OtlpReceiver
from connectors.otlp.settings import OtlpExporterSettings, OtlpReceiverSettings

__all__ = [
    "BoundPorts",
    "NullOtlpServer",
    "OtlpExporterSettings",
    "OtlpReceiver",
    "OtlpReceiverSettings",
    "OtlpSink",
]
