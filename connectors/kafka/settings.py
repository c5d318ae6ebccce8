"""Options of the Kafka source and sink; names and defaults are those of the Collector's kafka components."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator

from connectors.otlp.settings import split_address
from telflow.codec import Encoding
from telflow.schema import Signal
from telflow.settings import Duration, Settings, Switchable

__all__ = [
    "KafkaClientSettings",
    "KafkaEncoding",
    "KafkaExporterSettings",
    "KafkaReceiverSettings",
    "KafkaTlsSettings",
    "LogsTopicSettings",
    "LogsTopicsSettings",
    "MetricsTopicSettings",
    "MetricsTopicsSettings",
    "SaslSettings",
    "Topic",
    "TopicSettings",
    "TopicsSettings",
    "TracesTopicSettings",
    "TracesTopicsSettings",
    "codec_encoding",
]

_MIB = 1 << 20
_OURS = {
    "acks": "always all",
    "auto.offset.reset": "set initial_offset",
    "bootstrap.servers": "set brokers",
    "client.id": "set client_id",
    "delivery.timeout.ms": "set delivery_timeout",
    "enable.auto.commit": "offsets are committed after the epoch",
    "enable.auto.offset.store": "offsets are committed after the epoch",
    "enable.idempotence": "always on",
    "group.id": "set group_id",
    "message.max.bytes": "set max_message_bytes",
    "message.timeout.ms": "set delivery_timeout",
    "metadata.broker.list": "set brokers",
    "request.required.acks": "always all",
}
"""Options of librdkafka on which the promises of source and sink rest, and what to do instead of setting them."""

KafkaEncoding: TypeAlias = Literal["otlp_proto", "otlp_json"]
"""How a message's value is written: an Export*ServiceRequest in protobuf, or the same as OTLP/JSON."""

Topic = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
"""Name of a Kafka topic."""


def codec_encoding(encoding: KafkaEncoding) -> Encoding:
    """Return the codec's name of an encoding.

    >>> codec_encoding("otlp_proto")
    'protobuf'
    """
    return "protobuf" if encoding == "otlp_proto" else "json"


def _checked_broker(address: str) -> str:
    split_address(address)
    return address


class KafkaTlsSettings(Settings):
    """Whom a client trusts, and how it identifies itself."""

    ca_file: Path | None = None
    """PEM file with the authorities to trust; the system's when not set."""

    cert_file: Path | None = None
    """PEM file with the client's certificate (mTLS)."""

    key_file: Path | None = None
    """PEM file with the private key of `cert_file`."""

    key_password: SecretStr | None = None
    """Password of `key_file`."""

    @model_validator(mode="after")
    def _check(self) -> KafkaTlsSettings:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("expected cert_file and key_file together, got one of them")
        return self


class SaslSettings(Settings):
    """How a client authenticates to the brokers."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = "SCRAM-SHA-512"
    """How. PLAIN sends the password itself, so use it over TLS only; OAUTHBEARER is set up with librdkafka's
    `sasl.oauthbearer.*` options."""

    username: str = ""
    """Name of the user."""

    password: SecretStr = SecretStr("")
    """Password of the user."""

    @model_validator(mode="after")
    def _check(self) -> SaslSettings:
        if self.mechanism != "OAUTHBEARER" and not (self.username and self.password.get_secret_value()):
            raise ValueError(f"expected username and password with mechanism {self.mechanism}")
        return self


class KafkaClientSettings(Settings):
    """How to reach a Kafka cluster."""

    brokers: tuple[Annotated[str, AfterValidator(_checked_broker)], ...] = Field(
        default=("localhost:9092",), min_length=1
    )
    """Some of the cluster's brokers, `host:port` each; the others are learnt from them."""

    client_id: str = "telflow"
    """Name of this client in the brokers' logs and quotas."""

    tls: Switchable[KafkaTlsSettings] = None
    """Use TLS; plain text when not set."""

    sasl: SaslSettings | None = None
    """Authenticate; not done when not set."""

    librdkafka: Mapping[str, str | int | float | bool] = {}
    """Further options of librdkafka, the client library, under its own names: `fetch.wait.max.ms`,
    `sasl.oauthbearer.method` and the like."""

    @model_validator(mode="after")
    def _check_options(self) -> KafkaClientSettings:
        for name in self.librdkafka:
            if name in _OURS:
                raise ValueError(f"librdkafka: {name} cannot be set here: {_OURS[name]}")
        return self


class TopicsSettings(Settings):
    """Where one signal is read from."""

    topics: tuple[Topic, ...] = Field(min_length=1)
    """Topics to read. One that does not exist yet is read as soon as it does."""

    encoding: KafkaEncoding = "otlp_proto"
    """How the messages are written: `otlp_proto` or `otlp_json`."""


class TracesTopicsSettings(TopicsSettings):
    """Where spans are read from."""

    topics: tuple[Topic, ...] = Field(default=("otlp_spans",), min_length=1)
    """Topics to read. One that does not exist yet is read as soon as it does."""


class MetricsTopicsSettings(TopicsSettings):
    """Where metrics are read from."""

    topics: tuple[Topic, ...] = Field(default=("otlp_metrics",), min_length=1)
    """Topics to read. One that does not exist yet is read as soon as it does."""


class LogsTopicsSettings(TopicsSettings):
    """Where logs are read from."""

    topics: tuple[Topic, ...] = Field(default=("otlp_logs",), min_length=1)
    """Topics to read. One that does not exist yet is read as soon as it does."""


class KafkaReceiverSettings(KafkaClientSettings):
    """Reads OTLP messages from Kafka, as the Collector's kafka exporter writes them."""

    group_id: str = Field(default="telflow", min_length=1)
    """Consumer group that offsets are committed under, where the brokers' tools show how far behind the gateway is.
    Partitions are assigned by telflow, not by the group: two flows need two groups."""

    initial_offset: Literal["latest", "earliest"] = "latest"
    """Where reading begins when neither the flow's saved state nor the group has an offset."""

    traces: Switchable[TracesTopicsSettings] = TracesTopicsSettings()
    """Topics with spans; false: none."""

    metrics: Switchable[MetricsTopicsSettings] = MetricsTopicsSettings()
    """Topics with metrics; false: none."""

    logs: Switchable[LogsTopicsSettings] = LogsTopicsSettings()
    """Topics with logs; false: none."""

    tenant: str | None = Field(default=None, min_length=1)
    """Whose data it is when a message does not say; null: nobody's."""

    tenant_header: str | None = Field(default=None, min_length=1)
    """Message header whose value names the tenant. Whoever may write to the topic can write any name into it."""

    max_batch_bytes: int = Field(default=4 * _MIB, ge=1024)
    """Message bytes of one partition that are decoded together."""

    prefetch_bytes: int = Field(default=64 * _MIB, ge=_MIB)
    """Memory for messages that were fetched and wait; when it is spent, fetching pauses."""

    commit_interval: Duration = Field(default=timedelta(seconds=1), gt=timedelta())
    """How often offsets that the flow has committed are told to the brokers."""

    metadata_interval: Duration = Field(default=timedelta(seconds=30), gt=timedelta())
    """How often new topics and partitions are looked for."""

    startup_timeout: Duration = Field(default=timedelta(seconds=30), gt=timedelta())
    """How long a start waits for a broker."""

    @property
    def by_topic(self) -> dict[str, tuple[Signal, Encoding]]:
        """What each topic holds, and how its messages are written."""
        return {
            topic: (signal, codec_encoding(part.encoding))
            for signal, part in ((Signal.TRACES, self.traces), (Signal.METRICS, self.metrics), (Signal.LOGS, self.logs))
            if part is not None
            for topic in part.topics
        }

    @model_validator(mode="after")
    def _check_topics(self) -> KafkaReceiverSettings:
        parts = [part for part in (self.traces, self.metrics, self.logs) if part is not None]
        if not parts:
            raise ValueError("expected one of traces, metrics and logs at least, got none")
        twice = [topic for topic, n in Counter(topic for part in parts for topic in part.topics).items() if n > 1]
        if twice:
            raise ValueError(f"expected each topic once, got {twice[0]!r} twice; a topic holds one signal")
        return self


class TopicSettings(Settings):
    """Where one signal is written to."""

    topic: Topic
    """Topic to write to."""

    encoding: KafkaEncoding = "otlp_proto"
    """How the messages are written: `otlp_proto` or `otlp_json`."""


class TracesTopicSettings(TopicSettings):
    """Where spans are written to."""

    topic: Topic = "otlp_spans"
    """Topic to write to."""


class MetricsTopicSettings(TopicSettings):
    """Where metrics are written to."""

    topic: Topic = "otlp_metrics"
    """Topic to write to."""


class LogsTopicSettings(TopicSettings):
    """Where logs are written to."""

    topic: Topic = "otlp_logs"
    """Topic to write to."""


class KafkaExporterSettings(KafkaClientSettings):
    """Writes OTLP messages to Kafka, as the Collector's kafka receiver reads them."""

    traces: TracesTopicSettings = TracesTopicSettings()
    """Topic for spans."""

    metrics: MetricsTopicSettings = MetricsTopicSettings()
    """Topic for metrics."""

    logs: LogsTopicSettings = LogsTopicSettings()
    """Topic for logs."""

    key: Literal["none", "tenant", "trace_id", "trace_partition"] = "none"
    """Message keys, which decide on the topic's partition. `tenant`: the tenant's name. `trace_id`: spans and logs are
    split by trace, a message each, with its hexadecimal trace id as the key. `trace_partition`: the same choice of
    partition for each trace, but all traces of a partition together in messages without a key, which takes a small part
    of the messages. `none`: any partition."""

    tenant_header: str | None = Field(default=None, min_length=1)
    """Message header that is to say whose data it is; null: it is not said."""

    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"
    """How messages are compressed on the way and in the topic."""

    max_message_bytes: int = Field(default=1_000_000, ge=1024)
    """Largest message before compression; larger batches are split. The topic must allow for a little more
    (`max.message.bytes`)."""

    buffer_bytes: int = Field(default=64 * _MIB, ge=_MIB)
    """Memory for messages the brokers have not acknowledged; when it is spent, the flow waits."""

    linger: Duration = Field(default=timedelta(milliseconds=5), ge=timedelta())
    """How long a message waits for others to travel with it."""

    delivery_timeout: Duration = timedelta()
    """A message that was not acknowledged after this time is dropped and counted; 0: it is repeated until it is, and
    the flow waits, so that in the end senders are told to come back later."""

    shutdown_timeout: Duration = timedelta(seconds=10)
    """How long a stopping gateway waits for acknowledgements."""

    def topic_of(self, signal: Signal) -> TopicSettings:
        """Return where a signal is written to."""
        return {Signal.TRACES: self.traces, Signal.METRICS: self.metrics, Signal.LOGS: self.logs}[signal]
