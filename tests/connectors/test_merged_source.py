"""Several sources under one step: their epochs end together, nobody spins, and who waits gives way to who has data."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, run_main
from typing_extensions import override

from bench.payloads import payload
from connectors.intake_source import IntakeSource
from connectors.kafka import KafkaReceiverSettings, KafkaSource
from connectors.kafka.settings import LogsTopicsSettings
from connectors.merged_source import MergedSource
from telflow import Signal, TelemetryBatch
from telflow.accounting import Ledger
from telflow.codec import encode
from telflow.delivery.committed import CommittedStates
from telflow.delivery.intake import MemoryIntake, RequestMeta
from tests.kafka_broker import Broker
from tests.numbered_logs import logs

_EPOCH = timedelta(milliseconds=100)
_NUMBERS = itertools.count()


class Resting(FixedPartitionedSource[TelemetryBatch, int]):
    """Two partitions that have nothing, and rest so long that their clocks would drift away from another's."""

    def __init__(
        self,
        events: list[str],
        ends_s: list[tuple[str, float]] | None = None,
        *,
        rest: timedelta = timedelta(milliseconds=70),
    ) -> None:
        self.events = events
        self.ends_s = [] if ends_s is None else ends_s
        self.rest = rest
        self.stopped = self.closed = False
        self.resumed: dict[str, int | None] = {}
        self.name = "resting"

    @override
    def list_parts(self) -> list[str]:
        return ["a/0", "z/0"]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> RestingPart:
        self.resumed[for_part] = resume_state
        return RestingPart(self, for_part, resume_state or 0)

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        self.closed = True

    def stats(self) -> str:
        return "rests"


class RestingPart(StatefulSourcePartition[TelemetryBatch, int]):
    def __init__(self, source: Resting, name: str, polls: int) -> None:
        self._source = source
        self._name = name
        self._polls = polls

    @override
    def next_batch(self) -> Iterable[TelemetryBatch]:
        self._source.events.append(self._name)
        self._polls += 1
        if self._source.stopped:
            raise StopIteration
        return []

    @override
    def next_awake(self) -> datetime:
        return datetime.now(UTC) + self._source.rest

    @override
    def snapshot(self) -> int:
        self._source.ends_s.append((self._name, time.monotonic()))
        return self._polls


class Watched(MemoryIntake):
    """An intake that says when it is asked, and how long it may wait."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.events = events
        self.waits_s: list[float] = []

    @override
    def take(self, *, timeout_s: float, max_bytes: int, linger_s: float = 0.0) -> list[TelemetryBatch]:
        self.events.append("intake")
        self.waits_s.append(timeout_s)
        return super().take(timeout_s=timeout_s, max_bytes=max_bytes, linger_s=linger_s)


class WatchedIntakeSource(IntakeSource):
    """Notes when its epochs end."""

    def __init__(self, intake: Watched, ends_s: list[tuple[str, float]], *, wait_s: float) -> None:
        super().__init__(intake, wait_s=wait_s)
        self.ends_s = ends_s

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> Any:
        part = super().build_part(step_id, for_part, resume_state)
        snapshot = part.snapshot

        def noted() -> int:
            self.ends_s.append((for_part, time.monotonic()))
            return snapshot()

        part.snapshot = noted  # type: ignore[method-assign]
        return part


def run(source: MergedSource, seconds: float, got: list[TelemetryBatch], recovery: Path | None = None) -> float:
    """Run a flow for a while; returns for how long it ran."""
    flow = Dataflow("merged")
    op.output("out", op.input("in", flow, source), TestingSink(got))
    if recovery is not None and not recovery.exists():
        recovery.mkdir()
        init_db_dir(recovery, 1)

    def stop() -> None:
        source.intake.intake.close()
        source.stop()

    timer = threading.Timer(seconds, stop)
    timer.start()
    began_s = time.monotonic()
    run_main(flow, epoch_interval=_EPOCH, recovery_config=None if recovery is None else RecoveryConfig(recovery))
    timer.join()
    return time.monotonic() - began_s


def test_epochs_of_all_partitions_end_together() -> None:
    """From the first snapshot of an epoch to the last is one round of polls, however long the others rest.

    With a step for each source it is some 80 ms here, in which the intake gets nothing to do.
    """
    ends_s: list[tuple[str, float]] = []
    source = MergedSource(WatchedIntakeSource(Watched([]), ends_s, wait_s=0.005), Resting([], ends_s))
    run(source, 1.5, [])
    by_part = [[at_s for of, at_s in ends_s if of == name] for name in ("a/0", "intake", "z/0")]
    spans_s = sorted(max(together) - min(together) for together in zip(*by_part, strict=True))
    assert len(spans_s) > 3
    assert spans_s[len(spans_s) // 2] < 0.03


def test_polls_are_few_when_nothing_comes() -> None:
    """The intake is asked as often as its wait allows and the others as their rest does, epoch after epoch."""
    events: list[str] = []
    took_s = run(MergedSource(IntakeSource(Watched(events), wait_s=0.02), Resting(events)), 1.0, [])
    rests, epochs = took_s / 0.07, took_s / _EPOCH.total_seconds()
    assert events.count("intake") <= took_s / 0.02 + 2 * rests + epochs + 5
    assert events.count("a/0") <= rests + 3
    assert events.count("z/0") <= rests + 3


def test_polls_are_few_beside_kafka(broker: Broker) -> None:
    """With a real broker that has nothing: the partitions come to rest, and the intake still waits its full time."""
    topic = broker.create(f"idle-{next(_NUMBERS)}", 2)
    kafka = KafkaSource(
        KafkaReceiverSettings(
            brokers=(broker.address,),
            group_id=topic,
            traces=None,
            metrics=None,
            logs=LogsTopicsSettings(topics=(topic,)),
        ),
        ledger=Ledger(),
    )
    intake = Watched([])
    merged = MergedSource(IntakeSource(intake), kafka)
    took_s = run(merged, 2.0, [])
    merged.close()
    assert len(intake.waits_s) <= took_s / 0.02 + took_s / 0.1 + 60  # it takes a few short rests to come to a long one
    assert sorted(intake.waits_s)[len(intake.waits_s) // 2] > 0.01


def test_data_of_both_arrives_and_kafka_does_not_wait_for_the_intake(broker: Broker) -> None:
    """While messages come the intake is asked without waiting."""
    topic = broker.create(f"busy-{next(_NUMBERS)}")
    broker.send(topic, *(encode(logs([number])) for number in range(50)))
    kafka = KafkaSource(
        KafkaReceiverSettings(
            brokers=(broker.address,),
            group_id=topic,
            initial_offset="earliest",
            max_batch_bytes=1024,
            traces=None,
            metrics=None,
            logs=LogsTopicsSettings(topics=(topic,)),
        ),
        ledger=Ledger(),
    )
    intake = Watched([])
    intake.accept(RequestMeta(None, Signal.LOGS, "protobuf", 0, payload=payload(Signal.LOGS, 3, 0)))
    got: list[TelemetryBatch] = []
    merged = MergedSource(IntakeSource(intake), kafka)
    run(merged, 2.0, got)
    merged.close()
    assert sum(batch.num_rows for batch in got) == 53
    assert intake.waits_s.count(0) >= len(got) // 2


def test_who_rests_says_how_long_the_intake_may_wait() -> None:
    """No longer than until the first of the others is due; without others as long as it likes."""
    merged = MergedSource(IntakeSource(MemoryIntake()), Resting([], rest=timedelta(hours=1)))
    assert merged.patience_s() > 1e6
    for name in merged.list_parts():
        merged.build_part("in", name, None)
    assert 3000 < merged.patience_s() <= 3600
    late = MergedSource(IntakeSource(MemoryIntake()), Resting([], rest=timedelta(seconds=-1)))
    for name in late.list_parts():
        late.build_part("in", name, None)
    assert late.patience_s() == 0


def test_a_source_that_is_switched_off_keeps_its_place(tmp_path: Path) -> None:
    """Recovery refuses partitions that are gone: they stay, bring nothing, and are handed on to the next run."""
    folder = tmp_path / "recovery"
    first = Resting([])
    run(MergedSource(IntakeSource(MemoryIntake()), first), 0.3, [], folder)
    assert first.resumed == {"a/0": None, "z/0": None}
    with CommittedStates(folder) as states:
        kept = states.keys("merged.in")
        assert kept == ["a/0", "intake", "z/0"]
        saved = {name: states.get("merged.in", name) for name in ("a/0", "z/0")}
    assert all(saved.values())
    for _ in range(2):
        off = MergedSource(IntakeSource(MemoryIntake()), retired=["a/0", "z/0"])
        assert off.list_parts() == ["intake", "a/0", "z/0"]
        run(off, 0.3, [], folder)
    again = Resting([])
    run(MergedSource(IntakeSource(MemoryIntake()), again, retired=["a/0", "z/0"]), 0.3, [], folder)
    assert again.resumed == saved


def test_stopping_closing_and_stats_reach_the_sources() -> None:
    """What the whole is told, each of its sources is told that understands it."""
    resting = Resting([])
    merged = MergedSource(IntakeSource(MemoryIntake()), resting)
    merged.stop()
    merged.close()
    assert resting.stopped
    assert resting.closed
    assert merged.stats() == {"resting": "rests"}
