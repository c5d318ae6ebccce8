"""Seeded, realistic telemetry: as batches, as OTLP requests, as a source."""

from connectors.generator.batches import GeneratedRequest, generate_batch, generate_batches, generate_requests
from connectors.generator.settings import GeneratorSettings
from connectors.generator.source import GeneratorSource

__all__ = [
    "GeneratedRequest",
    "GeneratorSettings",
    "GeneratorSource",
    "generate_batch",
    "generate_batches",
    "generate_requests",
]
