"""The exporter under SIGKILL, with a destination that comes and goes: no record is lost, and few arrive twice."""

from __future__ import annotations

import os
import random
import signal as signals
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
from bytewax.recovery import init_db_dir

from connectors.otlp.null_server import NullOtlpServer
from connectors.otlp.protocol import ExportRequest, Refusal
from telflow.codec import decode

ROOT = Path(__file__).parents[3]
ROWS, BATCHES = 20, 60
AWAY = Refusal(grpc.StatusCode.UNAVAILABLE, 503, "away")

_KILLED_FLOW = """
    import sys, time
    from datetime import timedelta
    from pathlib import Path

    import bytewax.operators as op
    from bytewax.dataflow import Dataflow
    from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
    from bytewax.recovery import RecoveryConfig
    from bytewax.testing import run_main

    from connectors.otlp import OtlpExporterSettings, OtlpSink
    from telflow.accounting import LEDGER
    from telflow.delivery.log import Durability, Log
    from tests.delivery import logs

    ROWS, BATCHES = 20, 60

    class Part(StatefulSourcePartition):
        def __init__(self, first, at):
            self.first, self.at = first, at or 0

        def next_batch(self):
            if self.at == BATCHES:
                raise StopIteration
            start = self.first + self.at * ROWS
            self.at += 1
            time.sleep(0.005)
            return [logs(ROWS, tenant="acme", first=start)]

        def snapshot(self):
            return self.at

    class Source(FixedPartitionedSource):
        def list_parts(self):
            return ["0", "1"]

        def build_part(self, step_id, for_part, resume_state):
            return Part(int(for_part) * ROWS * BATCHES, resume_state)

    port, store = sys.argv[1], Path(sys.argv[2])
    flow = Dataflow("killed")
    up = op.input("source", flow, Source())
    log = Log(store / "queues.db", durability=Durability.OS, min_free_bytes=0)
    settings = OtlpExporterSettings.model_validate({
        "endpoint": f"127.0.0.1:{port}",
        "retry_on_failure": {"initial_interval": "20ms", "max_interval": "50ms"},
        "circuit_breaker": {"open_duration": "50ms"},
        "shutdown_timeout": "30s",
    })
    sink = OtlpSink(settings, partitions=2, log=log)
    op.output("export", op.key_on("key", up, lambda b: str(b.records["time_unix_nano"][0])), sink)
    print("ready", flush=True)
    run_main(flow, epoch_interval=timedelta(milliseconds=20), recovery_config=RecoveryConfig(store))
    left = {part: stats.parcels for part, stats in sink.stats().items()}
    log.close()
    balances = LEDGER.balance().values()
    assert sum(b.delivered for b in balances) + sum(b.dropped for b in balances) > 0
    sys.exit(0 if not any(left.values()) else 3)
"""


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """SIGKILL again and again, the destination away half of the time: every record arrives at least once."""
    store = tmp_path / "recovery"
    store.mkdir()
    init_db_dir(store, 1)
    random_ = random.Random(int(os.environ.get("TELFLOW_KILL_SEED", "7")))
    away, done = threading.Event(), threading.Event()

    def answer(_request: ExportRequest) -> bytes:
        if away.is_set():
            raise AWAY
        return b""

    def come_and_go() -> None:
        while not done.wait(random_.uniform(0.05, 0.3)):
            away.set() if not away.is_set() else away.clear()
        away.clear()

    script = tmp_path / "flow.py"
    script.write_text(textwrap.dedent(_KILLED_FLOW))
    kills, ended = 0, False
    with NullOtlpServer(keep=True, answer=answer) as server:
        command = [sys.executable, str(script), str(server.grpc_port), str(store)]
        changing = threading.Thread(target=come_and_go)
        changing.start()
        while not ended:
            with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=-1) as flow:
                assert flow.stdout is not None
                assert flow.stdout.readline() == b"ready\n"
                if kills < int(os.environ.get("TELFLOW_KILLS", "3")):
                    time.sleep(random_.uniform(0.1, 0.6))
                    flow.send_signal(signals.SIGKILL)
                    kills += flow.wait() == -signals.SIGKILL
                else:
                    done.set()
                ended = flow.wait() in (0, 3)
        while flow.returncode == 3:  # it stopped while the destination was away: the rest is in the queue
            flow = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
            flow.wait()
        done.set()
        changing.join()
        arrived = Counter(
            number
            for request in server.kept
            for number in decode(request.payload, request.signal).column("time_unix_nano").to_pylist()
        )
    assert flow.returncode == 0
    assert kills
    assert set(arrived) == set(range(1, 2 * ROWS * BATCHES + 1))
    # What was delivered in an epoch that was never committed comes again; no more than a few epochs' worth each time.
    assert sum(arrived.values()) - len(arrived) < len(arrived)
