"""Prometheus: metrics out by remote write, and to be scraped."""

from connectors.prometheus.exposition import ExposeSettings, ExpositionSink
from connectors.prometheus.settings import LabelSettings, PrometheusExporterSettings
from connectors.prometheus.sink import PrometheusSink

__all__ = ["ExposeSettings", "ExpositionSink", "LabelSettings", "PrometheusExporterSettings", "PrometheusSink"]
