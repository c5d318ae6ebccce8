"""Runs the demo: shop, gateway, destination, query, replay; then shows what happened."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
from rich.text import Text

from connectors.archive import ArchiveSettings, query
from connectors.otlp import (
    NullOtlpServer,
    OtlpExporterSettings,
    OtlpReceiverSettings,
    OtlpSink,
)
from connectors.otlp.settings import GrpcServerSettings, HttpServerSettings
from control.account import account, accounting_table, totals
from control.demo import findings
from control.drain import drain_on_signal
from control.engine import run_dataflow
from control.exit_codes import FlowError
from control.gateway_run import Gateway
from control.screen import Screen, table
from flows.gateway import GatewaySettings, ReceiversSettings
from flows.replay import ReplaySettings, build
from operators import SpanMetricsSettings
from telflow.accounting import Ledger
from telflow.delivery.storage import StorageSettings
from telflow.errors import ConfigError
from telflow.schema import Signal

__all__ = ["run_demo"]

_SHOP_TIMEOUT_S = 120
_MINUTE_S = 60.0
_WIDEST = 60
_SQL = (
    "select service_name, count(*) as spans, sum(case when status_code = 2 then 1 else 0 end) as errors"
    " from traces group by service_name order by spans desc"
)


@dataclass
class _Shop:
    """The shop's process, and what it said."""

    sent: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def run_demo(screen: Screen, *, orders: int, seed: int, keep: Path | None) -> None:
    """Run the demo and show it.

    Raises:
        ConfigError: The OpenTelemetry SDK, which the shop is instrumented with, is not installed.
        FlowError: Something was lost, or personal data got through.
    """
    if importlib.util.find_spec("opentelemetry.sdk") is None:
        raise ConfigError(
            "demo: expected the OpenTelemetry SDK, which the example shop is instrumented with, got none\n"
            "  hint: pip install 'telflow[demo]'"
        )
    with _folder(keep) as archive, NullOtlpServer(keep=True) as destination, NullOtlpServer(keep=True) as replayed:
        ledger = Ledger()
        screen.note(
            "1  a gateway: OTLP in -> coalesce -> partition by tenant -> redact -> span metrics -> OTLP, archive"
        )
        sent = _through_the_gateway(screen, archive, destination, ledger, orders, seed)
        payloads = [(request.signal, request.payload) for request in destination.kept]
        batches = findings.decoded(payloads)
        screen.note("4  a replay of the archive")
        delivered = _replay(archive, replayed)
        archived = {row["signal"]: row["records"] for row in _archived(archive).to_dicts()}
        again = {s.value: b.num_rows for s, b in findings.decoded((r.signal, r.payload) for r in replayed.kept).items()}
        screen.note("")
        services = findings.red(batches[Signal.METRICS], _MINUTE_S)
        samples = findings.after(sent["samples"], batches)
        leaked = findings.left_over(payloads, _personal_data())
        rows = query(archive, _SQL)
        sums = totals(ledger)
        screen.result(
            {
                "sent": {k: v for k, v in sent.items() if k != "samples"},
                "accounting": account(ledger),
                "services": services,
                "samples": samples,
                "personal_data_left": len(leaked),
                "query": rows.to_dicts(),
                "archived": archived,
                "replayed": again,
            },
            *_shown(ledger, batches, services, samples, leaked, rows, archived, again),
        )
        came = findings.count(batches, derived=False)
        wrong = [
            f"{sums.in_flight} records are unaccounted for" if sums.in_flight else "",
            f"sent {sent['spans']} spans, {came[Signal.TRACES]} arrived"
            if sent["spans"] != came[Signal.TRACES]
            else "",
            f"{len(leaked)} personal values got through" if leaked else "",
            f"archived {archived}, replayed {again}" if archived != again or sum(again.values()) != delivered else "",
        ]
        if any(wrong):
            raise FlowError("demo: " + "; ".join(w for w in wrong if w))
        if keep is not None:
            screen.note(f"The archive is in {keep}.")
        screen.note("Next: `telflow run` keeps a gateway up on 4317 and 4318; README.md has a first flow of your own.")


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        if keep.exists() and any(keep.iterdir()):
            raise ConfigError(f"--keep: expected a new or empty folder, got {keep}, which has something in it")
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="telflow-demo-") as folder:
        yield Path(folder) / "archive"


def _through_the_gateway(
    screen: Screen, archive: Path, destination: NullOtlpServer, ledger: Ledger, orders: int, seed: int
) -> dict[str, Any]:
    settings = GatewaySettings(
        receivers=ReceiversSettings(
            otlp=OtlpReceiverSettings(
                tenant="shop",
                grpc=GrpcServerSettings(endpoint="127.0.0.1:0"),
                http=HttpServerSettings(endpoint="127.0.0.1:0"),
            )
        ),
        # The shop places a minute's orders at once, so its spans arrive up to a minute out of order.
        span_metrics=SpanMetricsSettings(temporality="delta", lateness=timedelta(minutes=2)),
        exporters={"backend": OtlpExporterSettings(endpoint=f"127.0.0.1:{destination.grpc_port}")},
        archive=ArchiveSettings(path=archive),
        storage=StorageSettings(durability="memory"),  # it ends with the demo
    )
    gateway = Gateway(settings, ledger=ledger)
    shop = _Shop()
    with drain_on_signal(gateway.drain):
        ports = gateway.start()
        screen.note(f"   listening on 127.0.0.1:{ports.grpc} (gRPC) and :{ports.http} (HTTP)")
        screen.note(
            f"2  three services of a shop, instrumented with the OpenTelemetry SDK: {orders} orders in one minute"
        )
        visit = [sys.executable, "-P", "-m", "control.demo.shop", "--orders", str(orders), "--seed", str(seed)]
        visit += ["--grpc", f"127.0.0.1:{ports.grpc}", "--http", f"http://127.0.0.1:{ports.http}"]

        def go_shopping() -> None:
            try:
                done = subprocess.run(visit, capture_output=True, text=True, timeout=_SHOP_TIMEOUT_S, check=False)  # noqa: S603
                shop.error = done.stderr if done.returncode else ""
                shop.sent = json.loads(done.stdout) if not done.returncode else {}
            except (subprocess.TimeoutExpired, json.JSONDecodeError, OSError) as error:
                shop.error = str(error)
            finally:
                screen.note("3  the gateway drains: windows close, sinks flush")
                gateway.drain.request()

        shopping = threading.Thread(target=go_shopping, name="shop", daemon=True)
        shopping.start()
        gateway.run()
        shopping.join()
    if not shop.sent:
        raise FlowError(f"demo: the example shop did not come to its end\n{shop.error}")
    return shop.sent


def _archived(archive: Path) -> pl.DataFrame:
    """Count the archive's rows by signal."""
    names = [s.value for s in Signal if (archive / s.value).is_dir()]
    counts = " union all ".join(f"select '{name}' as signal, count(*) as records from {name}" for name in names)  # noqa: S608
    return query(archive, counts)


def _replay(archive: Path, replayed: NullOtlpServer) -> int:
    ledger = Ledger()
    sink = OtlpSink(OtlpExporterSettings(endpoint=f"127.0.0.1:{replayed.grpc_port}"), ledger=ledger)
    run_dataflow(build(ReplaySettings(path=archive), sink))
    return totals(ledger).delivered


def _personal_data() -> tuple[str, ...]:
    from control.demo.shop import PERSONAL_DATA

    return PERSONAL_DATA


def _shown(
    ledger: Ledger,
    batches: dict[Signal, Any],
    services: list[findings.Service],
    samples: list[findings.Sample],
    leaked: list[str],
    rows: pl.DataFrame,
    archived: dict[str, int],
    again: dict[str, int],
) -> list[Any]:
    came, made = findings.count(batches, derived=False), findings.count(batches, derived=True)
    flow = table("signal", "#arrived at the backend", "#of them made here", title="What came out over OTLP")
    for signal in batches:
        flow.add_row(signal.value, f"{came[signal] + made[signal]:,}", f"{made[signal]:,}")
    red = table("service", "#requests", "#/s", "#errors", "#p50 ms", "#p95 ms", title="RED, from span metrics")
    for s in services:
        share = s.errors / s.requests if s.requests else 0.0
        red.add_row(
            s.name, f"{s.requests:,}", f"{s.per_second:.1f}", f"{share:.1%}", f"{s.p50_ms:.0f}", f"{s.p95_ms:.0f}"
        )
    before_after = table("where", "before", "after", title="Personal data and secrets")
    for sample in samples:
        before_after.add_row(sample.place, _short(sample.before), _short(sample.after))
    asked = table(
        *(f"#{c}" if rows.schema[c].is_numeric() else c for c in rows.columns), title="A query on the archive"
    )
    for row in rows.iter_rows():
        asked.add_row(*(str(value) for value in row))
    twice = table("signal", "#archived", "#replayed", title="Replay of the archive")
    for name, records in archived.items():
        twice.add_row(name, f"{records:,}", f"{again.get(name, 0):,}")
    searched = f"{len(_personal_data())} known e-mail addresses and card numbers searched in all that left: "
    return [
        *(part for t in (accounting_table(account(ledger)), flow, red, before_after) for part in (t, "")),
        searched + (f"{len(leaked)} found" if leaked else "none found") + "\n",
        f'telflow query "{_SQL}"',
        asked,
        "",
        twice,
        "",
    ]


def _short(text: str) -> Text:
    return Text(text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…")
