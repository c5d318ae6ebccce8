"""The exporter under SIGKILL, with a destination that comes and goes: no record is lost, and few arrive twice."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import grpc
from bytewax.recovery import init_db_dir

from connectors.otlp.null_server import NullOtlpServer
from connectors.otlp.protocol import ExportRequest, Refusal
from telflow.codec import decode
from tests.killed_flow import ALL, random_of_kills, run_and_kill, run_once

ROOT = Path(__file__).parents[3]
AWAY = Refusal(grpc.StatusCode.UNAVAILABLE, 503, "away")

_KILLED_FLOW = """
    import sys
    from datetime import timedelta
    from pathlib import Path

    import bytewax.operators as op
    from bytewax.dataflow import Dataflow
    from bytewax.recovery import RecoveryConfig
    from bytewax.testing import run_main

    from connectors.otlp import OtlpExporterSettings, OtlpSink
    from telflow.accounting import LEDGER
    from telflow.delivery.log import Durability, Log
    from tests.delivery import logs
    from tests.killed_flow import NumberedSource

    port, store = sys.argv[1], Path(sys.argv[2])
    flow = Dataflow("killed")
    batch_of = lambda numbers: logs(len(numbers), tenant="acme", first=numbers.start)
    up = op.input("source", flow, NumberedSource(batch_of, pause_s=0.005))
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
    random_ = random_of_kills()
    away, done = threading.Event(), threading.Event()

    def answer(_request: ExportRequest) -> bytes:
        if away.is_set():
            raise AWAY
        return b""

    def come_and_go() -> None:
        while not done.wait(random_.uniform(0.05, 0.3)):
            away.set() if not away.is_set() else away.clear()
        away.clear()

    with NullOtlpServer(keep=True, answer=answer) as server:
        arguments = (server.grpc_port, store)
        changing = threading.Thread(target=come_and_go)
        changing.start()
        code = run_and_kill(
            tmp_path, _KILLED_FLOW, *arguments, after_s=(0.1, 0.6), kills=3, ends=(0, 3), let_live=done.set
        )
        while code == 3:  # it stopped while the destination was away: the rest is in the queue
            with run_once(tmp_path, _KILLED_FLOW, *arguments) as flow:
                code = flow.wait()
        done.set()
        changing.join()
        arrived = Counter(
            number
            for request in server.kept
            for number in decode(request.payload, request.signal).column("time_unix_nano").to_pylist()
        )
    assert code == 0
    assert set(arrived) == {number + 1 for number in ALL}
    # What was delivered in an epoch that was never committed comes again; no more than a few epochs' worth each time.
    assert sum(arrived.values()) - len(arrived) < len(arrived)
