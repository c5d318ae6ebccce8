"""A worker killed in the middle of a stream, again and again: nothing is lost, and the brokers show the lag.

`TELFLOW_KAFKA_KILLS=20` for the long form.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

from bytewax.recovery import init_db_dir

from telflow.codec import decode, encode
from telflow.schema import Signal
from tests.cluster import Cluster
from tests.kafka_broker import Broker
from tests.numbered_logs import logs

FLOW = Path(__file__).parents[2] / "kafka_copy_flow.py"
KILLS = int(os.environ.get("TELFLOW_KAFKA_KILLS", "3"))
PARTITIONS = 3


def test_nothing_is_lost_when_workers_are_killed(broker: Broker, topic: str, tmp_path: Path) -> None:
    """Every record written to the topic arrives in the other one; the group's lag ends at zero."""
    target = f"{topic}-copy"
    broker.create(topic, PARTITIONS)
    broker.create(target)
    init_db_dir(tmp_path, 1)
    environment = {"BROKER": broker.address, "GROUP": topic, "FROM": topic, "TO": target, "RECOVERY": str(tmp_path)}
    arguments = ["-r", str(tmp_path), "-s", "1", "-b", "0"]
    written = 0
    done = threading.Event()

    def write() -> None:
        nonlocal written
        while not done.is_set():
            values: list[bytes | None] = [encode(logs(range(n, n + 10))) for n in range(written, written + 200, 10)]
            broker.send(topic, *values, partition=written // 200 % PARTITIONS)
            written += 200
            time.sleep(0.02)

    def copied_so_far() -> int:
        return sum(broker.end(target))

    def moved_on(before: int) -> bool:
        return copied_so_far() > before

    def lag() -> int:
        return sum(broker.lag(topic, topic, number) for number in range(PARTITIONS))

    writer = threading.Thread(target=write)
    writer.start()
    rng = random.Random(7)
    lags: list[int] = []
    try:
        for _ in range(KILLS):
            before = copied_so_far()
            with Cluster(FLOW, processes=1, environment=environment, arguments=arguments) as run:
                run.wait_until(partial(moved_on, before))
                time.sleep(rng.uniform(0, 1.5))
                run.kill()
            lags.append(lag())
    finally:
        done.set()
        writer.join()
    with Cluster(FLOW, processes=1, environment=environment, arguments=arguments) as run:
        run.wait_until(lambda: lag() == 0)
        run.kill()
    copied: Counter[int] = Counter()
    for message in broker.messages(target):
        copied.update(decode(message.value() or b"", Signal.LOGS).column("flags").to_pylist())
    print(f"{KILLS} kills, {written} written, {sum(copied.values()) - written} duplicates, lag at the kills {lags}")  # noqa: T201
    assert sorted(copied) == list(range(written))
    assert all(lags)
