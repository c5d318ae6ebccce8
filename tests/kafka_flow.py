"""Runs a dataflow from a Kafka source until it has read what it should."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, run_main

from connectors.kafka import KafkaSource
from telflow.batch import TelemetryBatch

__all__ = ["read"]


def read(
    source: KafkaSource,
    until: int | Callable[[list[TelemetryBatch]], bool],
    *,
    recovery_dir: Path | None = None,
    epoch: timedelta = timedelta(milliseconds=50),
    timeout_s: float = 60,
) -> list[TelemetryBatch]:
    """Run a flow until its sink has so many records, or until `until` says so; then drain it and return the batches."""
    got: list[TelemetryBatch] = []
    flow = Dataflow("read")
    op.output("keep", op.input("kafka", flow, source), TestingSink(got))
    recovery = None
    if recovery_dir is not None:
        if not recovery_dir.exists():
            recovery_dir.mkdir()
            init_db_dir(recovery_dir, 1)
        recovery = RecoveryConfig(recovery_dir)

    def watch() -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if until(got) if callable(until) else sum(batch.num_rows for batch in list(got)) >= until:
                break
            time.sleep(0.01)
        source.stop()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run_main(flow, epoch_interval=epoch, recovery_config=recovery)
    finally:
        source.stop()
        watcher.join()
        source.close()
    assert until(got) if callable(until) else sum(batch.num_rows for batch in got) == until
    return got
