"""OTLP messages from and to Kafka, as the Collector's kafka components write and read them."""

from connectors.kafka.reader import is_place
from connectors.kafka.settings import KafkaExporterSettings, KafkaReceiverSettings
from connectors.kafka.sink import KafkaSink, KafkaSinkStats
from connectors.kafka.source import KafkaSource, KafkaSourceStats

__all__ = [
    "KafkaExporterSettings",
    "KafkaReceiverSettings",
    "KafkaSink",
    "KafkaSinkStats",
    "KafkaSource",
    "KafkaSourceStats",
    "is_place",
]
