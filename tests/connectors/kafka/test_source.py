"""The Kafka source against a real broker: everything once, from where the flow left off, whatever the messages are."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from connectors.kafka import KafkaReceiverSettings, KafkaSource
from connectors.kafka.settings import KafkaEncoding, codec_encoding
from connectors.kafka.source import rooms
from telflow.accounting import Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.codec import encode
from telflow.delivery.dead_letters import DeadLetterReader, DeadLetters
from telflow.errors import ConfigError
from telflow.schema import Signal
from tests.connectors.otlp.conftest import request_message
from tests.kafka_broker import Broker
from tests.kafka_flow import read
from tests.numbered_logs import logs
from tests.oracle import batch_from_message
from tests.same import assert_same_batch


def settings(broker: Broker, topic: str, **options: Any) -> KafkaReceiverSettings:
    defaults: dict[str, Any] = {
        "brokers": (broker.address,),
        "group_id": topic,
        "initial_offset": "earliest",
        "traces": None,
        "metrics": None,
        "logs": {"topics": (topic,)},
        "metadata_interval": timedelta(milliseconds=100),
        "commit_interval": timedelta(milliseconds=20),
    }
    return KafkaReceiverSettings(**defaults | options)


def numbers(batches: list[TelemetryBatch]) -> list[int]:
    return [n for batch in list(batches) for n in batch.column("flags").to_pylist()]


def values(*wanted: int) -> list[bytes | None]:
    return [encode(logs([number])) for number in wanted]


@pytest.mark.parametrize("encoding", ["otlp_proto", "otlp_json"])
@pytest.mark.parametrize("signal", Signal)
def test_reads_every_signal_in_both_encodings(
    broker: Broker, topic: str, signal: Signal, encoding: KafkaEncoding
) -> None:
    """What another writer encoded comes out as the batch it was, under the tenant of its header, and is counted."""
    batch = batch_from_message(request_message(signal, 3), signal, "acme")
    broker.create(topic)
    broker.send(topic, encode(batch, codec_encoding(encoding)), headers=[("tenant", b"other"), ("tenant", b"acme")])
    parts: dict[str, Any] = {"traces": None, "metrics": None, "logs": None}
    parts[signal] = {"topics": (topic,), "encoding": encoding}
    source = KafkaSource(settings(broker, topic, tenant_header="tenant", **parts), ledger=(ledger := Ledger()))
    [got] = read(source, 3)
    assert_same_batch(got, batch)
    assert [(row.outcome, row.tenant, row.component, row.count) for row in ledger.rows()] == [
        (Outcome.RECEIVED, "acme", "kafka", 3)
    ]


def test_messages_of_a_poll_become_one_batch(broker: Broker, topic: str) -> None:
    """Small messages are decoded together, in order, up to `max_batch_bytes`."""
    broker.create(topic)
    broker.send(topic, *values(*range(200)))
    got = read(KafkaSource(settings(broker, topic), ledger=Ledger()), 200)
    assert numbers(got) == list(range(200))
    assert len(got) < 20
    size = len(values(0)[0] or b"")
    small = settings(broker, topic, max_batch_bytes=max(1024, 10 * size))
    assert max(batch.num_rows for batch in read(KafkaSource(small, ledger=Ledger()), 200)) <= max(1024 // size, 10)


def test_a_bad_message_is_put_aside_and_the_others_pass(
    broker: Broker, topic: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut protobuf, a null value and a header that is no name: the worker lives, each bad one is kept and counted."""
    broker.create(topic)
    good = values(0, 1, 2)
    broker.send(topic, good[0], b"\x0a\xff", None, good[1], headers=[("tenant", b"acme")])
    broker.send(topic, good[2], headers=[("tenant", b"\xff\xfe")])
    broker.send(topic, good[2])
    ledger = Ledger()
    with DeadLetters(tmp_path / "deadletter.db") as letters:
        options = settings(broker, topic, tenant_header="tenant")
        source = KafkaSource(options, dead_letters=letters, ledger=ledger, name="bus")
        assert numbers(read(source, 3)) == [0, 1, 2]
    with DeadLetterReader(tmp_path / "deadletter.db") as reader:
        kept = [(each.origin, each.reason, each.tenant, entry.payload) for each, entry in reader.read(reader.letters())]
    assert sorted(kept, key=str) == [
        ("bus", "undecodable", "acme", b"\x0a\xff"),
        ("bus", "undecodable", None, good[2]),
    ]
    assert f"{topic}/0@4 is no OTLP request: tenant header" in caplog.text
    assert source.stats().undecodable == 2
    counted = [(row.outcome, row.tenant, row.reason, row.count) for row in ledger.rows() if row.reason]
    assert counted == [(Outcome.DROPPED, "", "undecodable", 1), (Outcome.DROPPED, "acme", "undecodable", 1)]
    assert sum(balance.in_flight for balance in ledger.balance().values()) == 3


def test_a_bad_message_that_nobody_keeps_is_counted_as_dropped(
    broker: Broker, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says where in Kafka it is, and nothing of what it holds."""
    broker.create(topic)
    broker.send(topic, b"secret" * 3, *values(1))
    ledger = Ledger()
    read(KafkaSource(settings(broker, topic), ledger=ledger), 1)
    assert [(row.outcome, row.count) for row in ledger.rows() if row.reason] == [(Outcome.DROPPED, 1)]
    assert f"{topic}/0@0" in caplog.text
    assert "secret" not in caplog.text


def test_a_restart_goes_on_where_the_saved_state_is(broker: Broker, topic: str, tmp_path: Path) -> None:
    """With recovery every message is read once over two runs, from two partitions of different length."""
    broker.create(topic, 2)
    broker.send(topic, *values(0, 1, 2))
    broker.send(topic, *values(3), partition=1)
    first = read(KafkaSource(settings(broker, topic), recovery_dir=tmp_path / "r"), 4, recovery_dir=tmp_path / "r")
    broker.send(topic, *values(4, 5), partition=1)
    again = KafkaSource(settings(broker, topic), recovery_dir=tmp_path / "r")
    second = read(again, 2, recovery_dir=tmp_path / "r")
    assert sorted(numbers(first)) == [0, 1, 2, 3]
    assert numbers(second) == [4, 5]


def test_offsets_are_committed_after_the_epoch_and_not_before(broker: Broker, topic: str, tmp_path: Path) -> None:
    """In an epoch that does not end, the broker shows what was read as lag; when it has ended, there is none."""
    broker.create(topic)
    broker.send(topic, *values(*range(10)))
    folder = tmp_path / "r"
    source = KafkaSource(settings(broker, topic), recovery_dir=folder)
    lags: list[int] = []

    def read_and_look(got: list[TelemetryBatch]) -> bool:
        if len(numbers(got)) == 10 and not lags:
            time.sleep(0.3)  # ten times the commit interval
            lags.append(broker.lag(topic, topic))
        return bool(lags)

    read(source, read_and_look, recovery_dir=folder, epoch=timedelta(hours=1))
    assert lags == [10]
    assert broker.lag(topic, topic) == 0


def test_lag_is_told_to_the_brokers_while_the_flow_runs(broker: Broker, topic: str, tmp_path: Path) -> None:
    """Soon after an epoch has been committed its offsets stand in the consumer group."""
    broker.create(topic)
    broker.send(topic, *values(*range(5)))
    folder = tmp_path / "r"
    source = KafkaSource(settings(broker, topic), recovery_dir=folder)
    read(source, lambda got: len(got) > 0 and broker.committed(topic, topic) == 5, recovery_dir=folder)
    assert source.stats().lag == {f"{topic}/0": 0}


def test_without_saved_state_nothing_is_committed(broker: Broker, topic: str) -> None:
    """Nobody could say what has left the flow for good; only where reading began is known."""
    broker.create(topic)
    broker.send(topic, *values(1, 2))
    read(KafkaSource(settings(broker, topic)), 2)
    assert broker.committed(topic, topic) == 0


def test_begins_where_the_group_is_when_there_is_no_saved_state(broker: Broker, topic: str, tmp_path: Path) -> None:
    """A lost disk, or another program's offsets: reading goes on there, whatever `initial_offset` says."""
    broker.create(topic)
    broker.send(topic, *values(1, 2))
    read(KafkaSource(settings(broker, topic), recovery_dir=tmp_path / "a"), 2, recovery_dir=tmp_path / "a")
    broker.send(topic, *values(3))
    assert numbers(read(KafkaSource(settings(broker, topic)), 1)) == [3]


def test_latest_begins_at_the_end_and_stays_there(broker: Broker, topic: str) -> None:
    """What was there before is not read; what comes between a start and the next, unsaved, start is."""
    broker.create(topic)
    broker.send(topic, *values(1, 2))
    latest = settings(broker, topic, initial_offset="latest")
    read(KafkaSource(latest), lambda _: broker.committed(topic, topic) == 2)
    broker.send(topic, *values(3))
    assert numbers(read(KafkaSource(latest), 1)) == [3]


def test_new_topics_and_partitions_are_read_without_a_restart(broker: Broker, topic: str) -> None:
    """A topic that comes into being, and a partition it gets later, are read from their beginning."""
    source = KafkaSource(settings(broker, topic, initial_offset="latest"))
    source.list_parts()

    def grow() -> None:
        broker.create(topic)
        broker.send(topic, *values(0))
        broker.widen(topic, 2)
        broker.send(topic, *values(1), partition=1)

    growing = threading.Thread(target=grow)
    growing.start()
    got = read(source, 2)
    growing.join()
    assert sorted(numbers(got)) == [0, 1]


def test_a_topic_that_outgrows_its_room_is_said(broker: Broker, topic: str, caplog: pytest.LogCaptureFixture) -> None:
    """What fits is read at once, the rest after a restart, from its beginning; the log says that one is needed."""
    broker.create(topic)
    source = KafkaSource(settings(broker, topic, initial_offset="latest"))
    last = rooms(1)
    grown = threading.Event()

    def grow(got: list[TelemetryBatch]) -> bool:
        if not grown.is_set() and broker.committed(topic, topic) is not None:  # it reads
            grown.set()
            broker.widen(topic, last + 1)
            broker.send(topic, *values(1), partition=last - 1)
            broker.send(topic, *values(2), partition=last)
        return numbers(got) == [1] and "restart to read" in caplog.text

    assert numbers(read(source, grow)) == [1]
    again = KafkaSource(settings(broker, topic, initial_offset="latest"))
    assert sorted(numbers(read(again, 2))) == [1, 2]  # without saved state the first comes again


def test_a_partition_added_between_runs_is_read_from_its_beginning(broker: Broker, topic: str) -> None:
    """`latest` is for the first start: what came into a new partition meanwhile is not passed over."""
    broker.create(topic)
    latest = settings(broker, topic, initial_offset="latest")
    read(KafkaSource(latest), lambda _: broker.committed(topic, topic) == 0)
    broker.widen(topic, 2)
    broker.send(topic, *values(7), partition=1)
    assert numbers(read(KafkaSource(latest), 1)) == [7]


def test_messages_deleted_before_they_were_read_are_said_to_be_lost(
    broker: Broker, topic: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The topic's retention overtook the flow: it goes on with the oldest message there is, and says how many went."""
    broker.create(topic)
    broker.send(topic, *values(0))
    folder = tmp_path / "r"
    read(KafkaSource(settings(broker, topic), recovery_dir=folder), 1, recovery_dir=folder)
    broker.send(topic, *values(1, 2, 3, 4))
    broker.admin.delete_records([TopicPartition(topic, 0, 3)])[TopicPartition(topic, 0, 3)].result(10)
    source = KafkaSource(settings(broker, topic), recovery_dir=folder)
    assert numbers(read(source, 2, recovery_dir=folder)) == [3, 4]
    assert source.stats().lost == 2
    assert f"{topic}/0: 2 messages from offset 1 on were deleted" in caplog.text


def test_a_topic_made_anew_is_read_from_its_beginning(
    broker: Broker, topic: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A saved offset beyond its end means that it is another topic of the same name."""
    broker.create(topic)
    broker.send(topic, *values(0, 1, 2))
    folder = tmp_path / "r"
    read(KafkaSource(settings(broker, topic), recovery_dir=folder), 3, recovery_dir=folder)
    broker.admin.delete_topics([topic])[topic].result(10)
    time.sleep(0.5)
    broker.create(topic)
    broker.send(topic, *values(8))
    assert numbers(read(KafkaSource(settings(broker, topic), recovery_dir=folder), 1, recovery_dir=folder)) == [8]
    assert "made anew" in caplog.text


def test_an_epochs_budget_holds_the_source_back(broker: Broker, topic: str, tmp_path: Path) -> None:
    """No more than the budget, and what one poll brings beyond it, is read between two snapshots."""
    broker.create(topic)
    broker.send(topic, *values(*range(300)))
    size = len(values(0)[0] or b"")
    small = settings(broker, topic, max_batch_bytes=1024)
    source = KafkaSource(small, epoch_budget_bytes=1024, recovery_dir=tmp_path / "r")
    part_of_it: list[int] = []

    def look(got: list[TelemetryBatch]) -> bool:
        if got:
            time.sleep(0.3)  # some ten polls
            part_of_it.append(len(numbers(got)))
        return bool(got)

    read(source, look, epoch=timedelta(hours=1))
    assert 0 < part_of_it[-1] <= 2 * (1024 // size + 1)


def test_a_stalled_broker_stops_nothing_for_good(broker: Broker, topic: str) -> None:
    """While it does not answer nothing comes; when it does again, everything does."""
    broker.create(topic)
    broker.send(topic, *values(0))
    source = KafkaSource(settings(broker, topic))
    stalled = threading.Event()

    def stall(got: list[TelemetryBatch]) -> bool:
        if numbers(got) == [0] and not stalled.is_set():
            stalled.set()
            broker.pause()
            time.sleep(1.5)
            broker.resume()
            broker.send(topic, *values(1))
        return len(numbers(got)) == 2

    assert numbers(read(source, stall)) == [0, 1]


def test_a_broker_that_is_not_there_is_said_at_the_start() -> None:
    """The error names the address and what to check."""
    nobody = KafkaReceiverSettings(brokers=("127.0.0.1:1",), startup_timeout=timedelta(milliseconds=300))
    with pytest.raises(ConfigError, match=r"expected a Kafka broker at 127\.0\.0\.1:1, got.*hint: check `brokers`"):
        KafkaSource(nobody).list_parts()


def test_an_option_the_library_does_not_know_is_an_error() -> None:
    """It names the option."""
    with pytest.raises(ConfigError, match=r"kafka: .*fetch\.wait\.max"):
        KafkaSource(KafkaReceiverSettings(librdkafka={"fetch.wait.max": 3})).list_parts()


def test_partitions_always_have_room_to_grow() -> None:
    """Names are provided for more partitions than a topic has, and never fewer as it grows."""
    provided = [rooms(n) for n in range(100)]
    assert all(room > n for n, room in enumerate(provided))
    assert provided == sorted(provided)
