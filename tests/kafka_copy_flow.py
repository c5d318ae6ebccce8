"""A dataflow that copies logs from one Kafka topic to another, to be killed (`test_kafka_crash.py`)."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors.kafka import KafkaExporterSettings, KafkaReceiverSettings, KafkaSink, KafkaSource
from connectors.kafka.settings import LogsTopicSettings, LogsTopicsSettings

# With defaults, for whatever imports this file to look for examples.
named = {"BROKER": "localhost:9092", "GROUP": "copy", "FROM": "from", "TO": "to", "RECOVERY": "recovery", **os.environ}
brokers = (named["BROKER"],)
reads = KafkaReceiverSettings(
    brokers=brokers,
    group_id=named["GROUP"],
    traces=None,
    metrics=None,
    logs=LogsTopicsSettings(topics=(named["FROM"],)),
    initial_offset="earliest",
    max_batch_bytes=4096,
    commit_interval=timedelta(milliseconds=100),
)
writes = KafkaExporterSettings(brokers=brokers, logs=LogsTopicSettings(topic=named["TO"]))

flow = Dataflow("copy")
stream = op.input("read", flow, KafkaSource(reads, recovery_dir=Path(named["RECOVERY"])))
keyed = op.key_on("key", stream, lambda batch: batch.signal.value)
op.output("write", keyed, KafkaSink(writes))
