"""The Kafka sink against a real broker: all acknowledged or counted, where the keys say, in messages that fit."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message

from connectors.kafka import KafkaExporterSettings, KafkaSink
from connectors.kafka.client import ErrorLog
from connectors.kafka.producer import Producer, Verdict
from connectors.kafka.settings import KafkaEncoding, codec_encoding
from telflow.accounting import Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.codec import decode
from telflow.delivery.dead_letters import DeadLetterReader, DeadLetters
from telflow.errors import ConfigError, DeliveryError
from telflow.liveness import Liveness
from telflow.schema import Signal
from tests.batches import spans
from tests.connectors.otlp.conftest import request_message
from tests.kafka_broker import Broker
from tests.numbered_logs import logs
from tests.oracle import REQUESTS, batch_from_message
from tests.same import assert_same_batch


def settings(broker: Broker, topic: str, **options: Any) -> KafkaExporterSettings:
    own: dict[str, Any] = {"brokers": (broker.address,), "linger": timedelta()}
    return KafkaExporterSettings(**own | {signal: {"topic": topic} for signal in Signal} | options)


def write(sink: KafkaSink, *batches: TelemetryBatch) -> int:
    """Write and flush; returns the partition's state."""
    [part] = sink.list_parts()
    partition = sink.build_part("flow.kafka.write", part, None)
    partition.write_batch(list(batches))
    seen = partition.snapshot()
    partition.close()
    return seen


def counts(ledger: Ledger) -> list[tuple[Outcome, str, str, int]]:
    return [(row.outcome, row.tenant, row.reason, row.count) for row in ledger.rows()]


def numbers(messages: list[Message]) -> list[int]:
    found: list[int] = []
    for message in messages:
        found += decode(message.value() or b"", Signal.LOGS).column("flags").to_pylist()
    return found


def traced(*trace_ids: int) -> TelemetryBatch:
    """A span for each trace id, 0 for none; the span's id is its place."""
    request: Any = REQUESTS[Signal.TRACES]()
    scope = request.resource_spans.add().scope_spans.add()
    for place, trace_id in enumerate(trace_ids):
        scope.spans.add(trace_id=trace_id.to_bytes(16, "big") if trace_id else b"", span_id=(place + 1).to_bytes(8))
    return batch_from_message(request, Signal.TRACES, None)


@contextmanager
def paused(broker: Broker) -> Iterator[None]:
    """The broker accepts and never answers."""
    broker.pause()
    try:
        yield
    finally:
        broker.resume()


@pytest.mark.parametrize("encoding", ["otlp_proto", "otlp_json"])
@pytest.mark.parametrize("signal", Signal)
def test_writes_what_the_official_library_reads(
    broker: Broker, topic: str, signal: Signal, encoding: KafkaEncoding
) -> None:
    """Each signal in its topic, the tenant in the header, no key; all of it is there when `snapshot` has returned."""
    broker.create(topic)
    batch = batch_from_message(request_message(signal, 5), signal, "acme")
    options: dict[str, Any] = {signal: {"topic": topic, "encoding": encoding}, "tenant_header": "tenant"}
    ledger = Ledger()
    assert write(KafkaSink(settings(broker, topic, **options), ledger=ledger), batch) == 1
    [message] = broker.messages(topic)
    got = decode(message.value() or b"", signal, codec_encoding(encoding), tenant="acme")
    assert_same_batch(got, batch)
    assert message.headers() == [("tenant", b"acme")]
    assert message.key() is None
    assert counts(ledger) == [(Outcome.DELIVERED, "acme", "", 5)]


def test_tenants_do_not_share_messages(broker: Broker, topic: str) -> None:
    """A batch of several tenants becomes a message each, keyed by its name; nobody's has neither key nor header."""
    broker.create(topic)
    mixed = TelemetryBatch.concat([logs([1], tenant="acme"), logs([2]), logs([3], tenant="globex"), logs([4])])
    ledger = Ledger()
    write(KafkaSink(settings(broker, topic, key="tenant", tenant_header="tenant"), ledger=ledger), mixed)
    messages = {message.key(): message for message in broker.messages(topic)}
    assert {key: numbers([m]) for key, m in messages.items()} == {b"acme": [1], None: [2, 4], b"globex": [3]}
    assert messages[b"acme"].headers() == [("tenant", b"acme")]
    assert messages[None].headers() is None
    assert counts(ledger) == [(Outcome.DELIVERED, t, "", n) for t, n in (("", 2), ("acme", 1), ("globex", 1))]


def test_trace_keys_keep_a_trace_in_one_partition(broker: Broker, topic: str) -> None:
    """`trace_id`: a message per trace under its hexadecimal id. `trace_partition`: each trace in the same partition."""
    many = 6
    ids = [n % 40 for n in range(200)]
    where: dict[str, dict[bytes, set[int]]] = {}
    for key in ("trace_id", "trace_partition"):
        name = broker.create(f"{topic}-{key}", many)
        ledger = Ledger()
        write(KafkaSink(settings(broker, name, key=key), ledger=ledger), traced(*ids))
        assert counts(ledger) == [(Outcome.DELIVERED, "", "", 200)]
        places: dict[bytes, set[int]] = {}
        order: dict[bytes, list[int]] = {}
        messages = broker.messages(name)
        for message in messages:
            batch = decode(message.value() or b"", Signal.TRACES)
            for trace, span in zip(batch.column("trace_id"), batch.column("span_id"), strict=True):
                places.setdefault(trace.as_py() or b"", set()).add(message.partition() or 0)
                order.setdefault(trace.as_py() or b"", []).append(int.from_bytes(span.as_py()))
            if key == "trace_id":
                [trace_id] = {t.as_py() for t in batch.column("trace_id")}
                assert message.key() == (None if trace_id is None else trace_id.hex().encode())
        assert sum(len(spans) for spans in order.values()) == 200
        assert all(spans == sorted(spans) for spans in order.values())
        assert len(messages) == (40 if key == "trace_id" else len({p for ps in places.values() for p in ps} | {-1}))
        places.pop(b"")
        assert all(len(at) == 1 for at in places.values())
        where[key] = places
    assert where["trace_id"] == where["trace_partition"]
    assert len({next(iter(at)) for at in where["trace_id"].values()}) == many


def test_logs_without_a_trace_and_metrics_have_no_key(broker: Broker, topic: str) -> None:
    """Keys by trace leave alone what belongs to none."""
    broker.create(topic)
    metrics = batch_from_message(request_message(Signal.METRICS, 2), Signal.METRICS, None)
    for key in ("trace_id", "trace_partition"):
        write(KafkaSink(settings(broker, topic, key=key), ledger=Ledger()), logs([1, 2]), metrics)
    assert [message.key() for message in broker.messages(topic)] == [None] * 4


def test_batches_are_split_to_the_size_of_a_message(broker: Broker, topic: str) -> None:
    """No message is over `max_message_bytes`, nothing is missing, the order stays."""
    broker.create(topic)
    ledger = Ledger()
    write(KafkaSink(settings(broker, topic, max_message_bytes=2000), ledger=ledger), logs(range(500)))
    messages = broker.messages(topic)
    assert max(len(message) for message in messages) <= 2000
    assert numbers(messages) == list(range(500))
    assert counts(ledger) == [(Outcome.DELIVERED, "", "", 500)]


def test_a_record_too_large_for_a_message_is_dropped_alone(broker: Broker, topic: str, tmp_path: Path) -> None:
    """The records around it are delivered; it becomes a dead letter."""
    broker.create(topic)
    large = batch_from_message(request_message(Signal.LOGS, 1, "x" * 5000), Signal.LOGS, None)
    batch = TelemetryBatch.concat([logs(range(7)), large, logs(range(7, 10))])
    ledger = Ledger()
    with DeadLetters(tmp_path / "deadletter.db") as letters:
        options = settings(broker, topic, max_message_bytes=2000)
        write(KafkaSink(options, dead_letters=letters, ledger=ledger), batch)
    with DeadLetterReader(tmp_path / "deadletter.db") as reader:
        [(letter, entry)] = reader.read(reader.letters())
    assert (letter.origin, letter.reason, letter.records) == ("flow.kafka.write", "record too large", 1)
    assert_same_batch(decode(entry.payload, Signal.LOGS), large)
    assert numbers(broker.messages(topic)) == list(range(10))
    assert counts(ledger) == [(Outcome.DELIVERED, "", "", 10), (Outcome.DROPPED, "", "record too large", 1)]


def test_a_topic_with_a_lower_limit_gets_smaller_messages(broker: Broker, topic: str) -> None:
    """The broker refuses a message for its size: it is sent in parts, and only a record too large is dropped."""
    broker.create(topic, config={"max.message.bytes": "3000"})
    large = batch_from_message(request_message(Signal.LOGS, 1, "x" * 5000), Signal.LOGS, None)
    ledger = Ledger()
    write(KafkaSink(settings(broker, topic), ledger=ledger), TelemetryBatch.concat([logs(range(300)), large]))
    assert sorted(numbers(broker.messages(topic))) == list(range(300))
    assert counts(ledger) == [(Outcome.DELIVERED, "", "", 300), (Outcome.DROPPED, "", "record too large", 1)]


def test_snapshot_waits_for_the_brokers(broker: Broker, topic: str) -> None:
    """While the broker does not answer, `snapshot` does not return; when it does, everything is there once."""
    broker.create(topic)
    ledger = Ledger()
    partition = KafkaSink(settings(broker, topic), ledger=ledger).build_part("kafka", "kafka-0", None)
    partition.write_batch([logs([0])])
    partition.snapshot()
    done = threading.Event()

    def flush() -> None:
        partition.snapshot()
        done.set()

    with paused(broker):
        partition.write_batch([logs([1]), logs([2])])
        waiting = threading.Thread(target=flush)
        waiting.start()
        assert not done.wait(1)
        assert counts(ledger) == [(Outcome.DELIVERED, "", "", 1)]
    waiting.join(60)
    assert done.is_set()
    partition.close()
    assert numbers(broker.messages(topic)) == [0, 1, 2]
    assert counts(ledger) == [(Outcome.DELIVERED, "", "", 3)]


def test_a_missing_topic_is_waited_for(broker: Broker, topic: str) -> None:
    """What is written before the topic exists arrives when it does."""
    sink = KafkaSink(settings(broker, topic, librdkafka={"topic.metadata.propagation.max.ms": 100}), ledger=Ledger())
    creating = threading.Timer(1.5, broker.create, [topic])
    creating.start()
    write(sink, logs([5]))
    creating.join()
    assert numbers(broker.messages(topic)) == [5]


def test_a_full_buffer_holds_the_flow_back(broker: Broker, topic: str) -> None:
    """More than `buffer_bytes` unacknowledged: `write_batch` waits, and nothing is lost."""
    broker.create(topic)
    large = [batch_from_message(request_message(Signal.LOGS, 1, "x" * 300_000), Signal.LOGS, None)] * 8
    ledger = Ledger()
    partition = KafkaSink(settings(broker, topic, buffer_bytes=1 << 20), ledger=ledger).build_part("k", "kafka-0", None)
    partition.write_batch([logs([0])])
    partition.snapshot()
    with paused(broker):
        writing = threading.Thread(target=partition.write_batch, args=[large])
        writing.start()
        writing.join(1)
        assert writing.is_alive()
    writing.join(60)
    partition.snapshot()
    partition.close()
    assert counts(ledger) == [(Outcome.DELIVERED, "", "", 9)]


def test_after_delivery_timeout_records_are_dropped_and_counted(broker: Broker, topic: str) -> None:
    """Asked for, a silent broker does not hold the flow for longer."""
    broker.create(topic)
    ledger = Ledger()
    sink = KafkaSink(settings(broker, topic, delivery_timeout=timedelta(seconds=1)), ledger=ledger)
    partition = sink.build_part("kafka", "kafka-0", None)
    partition.write_batch([logs([0])])
    partition.snapshot()
    with paused(broker):
        partition.write_batch([logs([1, 2], tenant="acme")])
        partition.snapshot()
    partition.close()
    assert counts(ledger)[-1] == (Outcome.DROPPED, "acme", "not acknowledged in time", 2)


def test_a_stop_waits_no_longer_than_its_time() -> None:
    """No broker at all: what waits is dropped and counted, in the buffer, before it, and when a flow still writes."""
    ledger = Ledger()
    nobody = KafkaExporterSettings(brokers=("127.0.0.1:1",), shutdown_timeout=timedelta(milliseconds=200))
    sink = KafkaSink(nobody, ledger=ledger)
    partition = sink.build_part("kafka", "kafka-0", None)
    partition.write_batch([logs([1, 2])])
    sink.stop()
    started = time.monotonic()
    partition.snapshot()
    partition.write_batch([logs([3])])
    partition.close()
    assert time.monotonic() - started < 30
    assert counts(ledger) == [(Outcome.DROPPED, "", "not acknowledged before the stop", 3)]


def test_a_stop_keeps_what_the_flows_state_brings_again() -> None:
    """With saved state behind it nothing is dropped: the run ends with an error, its last epoch not committed."""
    ledger = Ledger()
    nobody = KafkaExporterSettings(brokers=("127.0.0.1:1",), shutdown_timeout=timedelta(milliseconds=100))
    sink = KafkaSink(nobody, ledger=ledger, keep_undelivered=True)
    partition = sink.build_part("kafka", "kafka-0", None)
    partition.write_batch([logs([1])])
    sink.stop()
    with pytest.raises(DeliveryError, match=r"1 messages were not acknowledged by 127\.0\.0\.1:1"):
        partition.snapshot()
    assert not counts(ledger)


def test_a_broken_producer_is_replaced(broker: Broker, topic: str) -> None:
    """After a fatal error, as when the brokers lost the producer's state, its messages go out through another one."""
    broker.create(topic)
    ledger = Ledger()
    partition: Any = KafkaSink(settings(broker, topic), ledger=ledger).build_part("kafka", "kafka-0", None)
    with paused(broker):
        partition.write_batch([logs([1]), logs([2])])
        verdict = partition._producer.judge(KafkaError(KafkaError._FATAL, "lost", fatal=True))
        assert verdict is Verdict.LATER
        partition._repeat()
    partition.snapshot()
    partition.close()
    assert set(numbers(broker.messages(topic))) == {1, 2}
    assert counts(ledger) == [(Outcome.DELIVERED, "", "", 2)]


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (KafkaError.NOT_LEADER_FOR_PARTITION, Verdict.LATER),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, Verdict.LATER),
        (KafkaError._UNKNOWN_TOPIC, Verdict.LATER),
        (KafkaError._MSG_TIMED_OUT, Verdict.LATER),
        (KafkaError.INVALID_RECORD, Verdict.REFUSED),
        (KafkaError.MSG_SIZE_TOO_LARGE, Verdict.TOO_LARGE),
    ],
)
def test_errors_that_concern_the_cluster_are_waited_for(code: int, verdict: Verdict) -> None:
    """Only what is wrong with the message itself loses it."""
    producer = Producer(KafkaExporterSettings(brokers=("127.0.0.1:1",)), "kafka", ErrorLog("kafka"))
    assert producer.judge(KafkaError(code)) is verdict
    producer.close()


def test_an_option_the_library_does_not_know_is_an_error() -> None:
    """It names the option."""
    sink = KafkaSink(KafkaExporterSettings(librdkafka={"linger": 3}))
    with pytest.raises(ConfigError, match=r"k: .*linger"):
        sink.build_part("k", "kafka-0", None)


def test_an_empty_batch_is_no_message(broker: Broker, topic: str) -> None:
    """Nothing is written and nothing counted."""
    broker.create(topic)
    ledger = Ledger()
    assert write(KafkaSink(settings(broker, topic), ledger=ledger), spans([]), logs([])) == 2
    assert not broker.messages(topic)
    assert not counts(ledger)


@pytest.mark.parametrize("full", [False, True])
def test_a_worker_that_waits_for_brokers_is_not_taken_for_a_hung_one(
    full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of an epoch and with a full buffer it says again and again that it waits on purpose."""
    said: list[float] = []

    class Watched(Liveness):
        def waiting(self) -> None:
            super().waiting()
            said.append(self.look().progress_age_s or 0.0)

    ticks = itertools.count()
    watched = Watched(lambda: float(next(ticks)))
    watched.progressed()
    monkeypatch.setattr("connectors.kafka.sink.LIVENESS", watched)
    nobody = KafkaExporterSettings(
        brokers=("127.0.0.1:1",), shutdown_timeout=timedelta(milliseconds=300), buffer_bytes=1 << 20
    )
    sink = KafkaSink(nobody, ledger=Ledger())
    partition = sink.build_part("flow.kafka.write", sink.list_parts()[0], None)
    sink.stop()
    if full:
        partition.write_batch([logs(range(2000))] * 30)  # more than the buffer holds
    else:
        partition.write_batch([logs([1])])
        assert said == []
        partition.snapshot()
    assert len(said) > 1
    assert all(age_s < 2 for age_s in said)  # ticks: what was said is the newest sign of life
    partition.close()
