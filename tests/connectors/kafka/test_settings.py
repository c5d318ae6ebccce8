"""Options of source and sink: the Collector's names, and nothing that would break a promise."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from connectors.kafka.settings import KafkaClientSettings, KafkaExporterSettings, KafkaReceiverSettings
from telflow.schema import Signal


def test_defaults_are_the_collectors_topics() -> None:
    """Both ends use the topics that the Collector's components use, in protobuf."""
    assert KafkaReceiverSettings().by_topic == {
        "otlp_spans": (Signal.TRACES, "protobuf"),
        "otlp_metrics": (Signal.METRICS, "protobuf"),
        "otlp_logs": (Signal.LOGS, "protobuf"),
    }
    written = {KafkaExporterSettings().topic_of(signal).topic: signal for signal in Signal}
    assert written == {topic: signal for topic, (signal, _) in KafkaReceiverSettings().by_topic.items()}


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"brokers": ()}, "at least 1"),
        ({"brokers": ("nowhere",)}, "expected host:port"),
        ({"sasl": {"username": "me"}}, "expected username and password with mechanism SCRAM-SHA-512"),
        ({"tls": {"cert_file": "x.pem"}}, "cert_file and key_file together"),
        ({"librdkafka": {"enable.auto.commit": True}}, "enable.auto.commit cannot be set here: offsets are committed"),
        ({"librdkafka": {"acks": 1}}, "acks cannot be set here: always all"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], error: str) -> None:
    """The message says what was expected, and for an option of librdkafka why it is not the user's."""
    with pytest.raises(ValidationError, match=error):
        KafkaClientSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"traces": False, "metrics": False, "logs": False}, "one of traces, metrics and logs"),
        ({"traces": {"topics": ("otlp_logs",)}}, "'otlp_logs' twice"),
        ({"traces": {"topics": ()}}, "at least 1"),
        ({"traces": {"topics": ("a/b",)}}, "pattern"),
    ],
)
def test_topics_are_told_apart(settings: dict[str, Any], error: str) -> None:
    """A topic holds one signal, and its name is one that Kafka takes."""
    with pytest.raises(ValidationError, match=error):
        KafkaReceiverSettings(**settings)
