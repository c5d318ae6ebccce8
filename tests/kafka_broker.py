"""A real Kafka broker for tests: its jars come through Maven, one node in KRaft mode runs on this machine's Java."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

__all__ = ["Broker", "free_ports", "run_broker", "why_no_broker"]

VERSION = "4.1.0"
_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>telflow.tests</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
  </dependencies>
</project>
"""
_JAVA = ("java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


def why_no_broker() -> str:
    """What is missing on this machine to run a broker; nothing when none is."""
    missing = [command for command in ("java", "mvn") if shutil.which(command) is None]
    return f"no {' and no '.join(missing)} on this machine: not tested against a Kafka broker" if missing else ""


class Broker:
    """A running broker."""

    def __init__(self, folder: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.address = f"127.0.0.1:{port}"
        self.folder = folder
        self._port = port
        self._process = process
        self.admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def create(self, topic: str, partitions: int = 1, config: dict[str, str] | None = None) -> str:
        """Make a topic; returns its name."""
        self.admin.create_topics([NewTopic(topic, partitions, 1, config=config or {})])[topic].result(30)
        return topic

    def widen(self, topic: str, partitions: int) -> None:
        """Give a topic more partitions."""
        self.admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(30)

    def send(
        self,
        topic: str,
        *values: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int = 0,
        key: bytes | None = None,
    ) -> None:
        """Write messages."""
        producer = Producer({"bootstrap.servers": self.address, "linger.ms": 0, "queue.buffering.max.messages": 0})
        for value in values:
            producer.produce(topic, value, key, partition, headers=list(headers))
        assert producer.flush(30) == 0

    def messages(self, topic: str) -> list[Message]:
        """All messages of a topic, partition by partition."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": "reads-all",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
            }
        )
        found: list[Message] = []
        try:
            for number in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)
                consumer.assign([TopicPartition(topic, number, low)])
                at = low
                while at < high:
                    message = consumer.poll(10)
                    assert message is not None
                    assert message.error() is None
                    found.append(message)
                    at = (message.offset() or 0) + 1
        finally:
            consumer.close()
        return found

    def committed(self, group: str, topic: str, partition: int = 0) -> int | None:
        """The offset a consumer group has committed; None when it has not."""
        where = TopicPartition(topic, partition)
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group})
        try:
            [found] = consumer.committed([where], timeout=10)
        finally:
            consumer.close()
        return None if found.offset < 0 else found.offset

    def end(self, topic: str) -> list[int]:
        """The offset after the last message of each of a topic's partitions."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "looks"})
        try:
            numbers = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            places = [TopicPartition(topic, number) for number in numbers]
            return [int(consumer.get_watermark_offsets(place, timeout=10)[1]) for place in places]
        finally:
            consumer.close()

    def lag(self, group: str, topic: str, partition: int = 0) -> int:
        """How many messages a consumer group is behind, as the broker's tools show it."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group})
        try:
            _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
        finally:
            consumer.close()
        return int(high) - (self.committed(group, topic, partition) or 0)

    def pause(self) -> None:
        """Stop the broker's process where it is: connections stay open, nothing answers."""
        self._process.send_signal(19)
        # Only when the last of its threads stands still has the signal done its work.
        tasks = Path(f"/proc/{self._process.pid}/task")
        while any((task / "stat").read_text().rpartition(") ")[2][0] not in "tTZX" for task in tasks.iterdir()):
            time.sleep(0.01)

    def resume(self) -> None:
        """Go on after `pause`."""
        self._process.send_signal(18)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def wait_until_ready(self) -> None:
        """Wait until the broker answers."""
        deadline = time.monotonic() + 120
        while True:
            try:
                self.admin.list_topics(timeout=2)
                self.committed("warm-up", "none")  # loads the groups' coordinator
            except KafkaException:
                assert self._process.poll() is None, (self.folder / "broker.log").read_text()
                assert time.monotonic() < deadline, (self.folder / "broker.log").read_text()
                time.sleep(0.1)
            else:
                return


@contextmanager
def run_broker(folder: Path, port: int | None = None, **settings: str) -> Iterator[Broker]:
    """Run a broker whose data is in `folder`; skips the test where Java or Maven is missing."""
    reason = why_no_broker()
    if reason:
        pytest.skip(reason)
    ports = free_ports(2)
    if port is not None:
        ports[0] = port
    folder.mkdir(parents=True, exist_ok=True)
    properties = folder / "server.properties"
    properties.write_text("".join(f"{k}={v}\n" for k, v in (_settings(folder, *ports) | settings).items()))
    classes = f"{_jars()}{os.sep}*"
    if not (folder / "data").exists():
        made = [*_JAVA, "-cp", classes, "kafka.tools.StorageTool", "format", "-t", "telflowtelflowtelflowQ", "-c"]
        done = subprocess.run([*made, str(properties)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    # So that no broker outlives tests that are killed.
    with_us = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    command = [*with_us, *_JAVA, "-cp", classes, "kafka.Kafka", str(properties)]
    with (folder / "broker.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    with Broker(folder, ports[0], process) as broker:
        broker.wait_until_ready()
        yield broker


def _settings(folder: Path, port: int, controller_port: int) -> dict[str, str]:
    one = dict.fromkeys(
        [
            "offsets.topic.num.partitions",
            "offsets.topic.replication.factor",
            "transaction.state.log.num.partitions",
            "transaction.state.log.replication.factor",
            "transaction.state.log.min.isr",
            "num.network.threads",
            "background.threads",
        ],
        "1",
    )
    return one | {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(folder / "data"),
        "num.io.threads": "2",
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        "log.cleaner.enable": "false",
        "broker.session.timeout.ms": "120000",  # a paused or starved broker is not to be taken for dead
        "log.retention.check.interval.ms": "1000",
        "log.initial.task.delay.ms": "1000",
    }


def _jars() -> Path:
    """The folder with Kafka's jars; fetched once per machine."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "telflow-tests" / f"kafka-{VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    jars = cache / "jars"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.exists():
            (cache / "pom.xml").write_text(_POM)
            command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"]
            done = subprocess.run(
                [*command, "-DoutputDirectory=fetching"], cwd=cache, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            (cache / "fetching").rename(jars)
    return jars


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    sockets: list[Any] = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
