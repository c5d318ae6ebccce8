"""A flow over a durable intake that fills itself, for tests that kill it; run it as a module.

Arguments: folder, first number to send, how many to send. It accepts requests of one log record each from several
threads, prints each number once its request is acknowledged, and writes what comes through the flow to a file, each
number exactly once: the file is cut back to its snapshot on a resume. With all sent it drains and ends.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import bytewax.operators as op
from bytewax.connectors.files import FileSink
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main

from connectors.intake_source import IntakeSource
from telflow import Signal, TelemetryBatch
from telflow.delivery.intake import RequestMeta
from telflow.delivery.log import Log
from telflow.delivery.log_intake import LogIntake
from tests.oracle import REQUESTS


def request(number: int) -> RequestMeta:
    message: Any = REQUESTS[Signal.LOGS]()
    record = message.resource_logs.add().scope_logs.add().log_records.add(flags=number)
    record.body.string_value = f"n{number}" * (1 if number % 3 else 2000)
    return RequestMeta("acme", Signal.LOGS, "protobuf", 0, payload=message.SerializeToString())


def lines(batch: TelemetryBatch) -> list[str]:
    return [str(number) for number in batch.records["flags"].to_pylist()]


def counted(state: tuple[int, int] | None, number: str) -> tuple[tuple[int, int], str]:
    """Keep count and sum of a key, and write them with the number."""
    count, total = state or (0, 0)
    state = (count + 1, total + int(number))
    return state, f"{number} {state[0]} {state[1]}"


def main() -> None:
    folder, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    recovery = folder / "recovery"
    if not recovery.exists():
        recovery.mkdir()
        init_db_dir(recovery, 1)
    log = Log(folder / "ingest.db", min_free_bytes=0)
    # Memory for some of it only, so that some is read back from the log.
    intake = LogIntake(log, max_bytes=300_000)

    def send(number: int) -> None:
        intake.accept(request(number))
        os.write(1, f"{number}\n".encode())

    def send_all() -> None:
        try:
            with ThreadPoolExecutor(6) as pool:
                list(pool.map(send, range(first, first + count)))
        finally:
            intake.close()  # what was not sent is missed by the test; a flow without an end would only hang it

    flow = Dataflow("durable")
    batches = op.input("intake", flow, IntakeSource(intake))
    numbers = op.flat_map("numbers", batches, lines)
    keyed = op.key_on("key", numbers, lambda number: str(int(number) % 4))
    sums = op.stateful_map("count", keyed, counted)
    output = folder / "output"
    output.touch()
    op.output("output", sums, FileSink(output))
    Thread(target=send_all, daemon=True).start()
    run_main(flow, epoch_interval=timedelta(milliseconds=30), recovery_config=RecoveryConfig(recovery))
    log.close()


if __name__ == "__main__":
    main()
