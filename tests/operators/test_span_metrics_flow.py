"""span_metrics, the step of a dataflow: one worker or a cluster, stopped, killed or drained, the totals are exact."""

from __future__ import annotations

import collections
import os
import pickle
import random
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main
from typing_extensions import override

from operators.span_metrics import SpanMetricsSettings, span_metrics
from telflow.accounting import Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.schema import Signal
from tests.spans import EPOCH, SECOND, Span, points, spans_batch

ROOT = Path(__file__).parent.parent.parent
NOW = EPOCH + 3600 * SECOND
TENANTS = ["acme", "initech", "umbrella", "hooli"]
Keyed: TypeAlias = tuple[str, TelemetryBatch]
Totals: TypeAlias = dict[tuple[Any, ...], tuple[int, float]]


def stream(batches: int = 50) -> list[Keyed]:
    """Batches of one tenant each, several to a window, out of order by up to 3 s."""
    rng = random.Random(11)
    return [
        (
            (tenant := TENANTS[i % 4]),
            spans_batch(
                [
                    Span(
                        end=EPOCH + i * SECOND + rng.randrange(3 * SECOND),
                        duration=rng.randrange(2 * SECOND),
                        name=rng.choice(["GET /", "POST /"]),
                        tenant=tenant,
                        status=rng.choice([None, 2]),
                    )
                    for _ in range(20)
                ]
            ),
        )
        for i in range(batches)
    ]


def settings(**options: Any) -> SpanMetricsSettings:
    base = {"temporality": "delta", "emit_on_eof": True, "idle_timeout": None}
    return SpanMetricsSettings.model_validate(base | options)


def expected(keyed: list[Keyed]) -> Totals:
    """Calls and summed duration per tenant, window, name and status, span by span."""
    counts: Totals = collections.defaultdict(lambda: (0, 0))
    for tenant, batch in keyed:
        for row in batch.records.to_pylist():
            end = row["end_time_unix_nano"]
            status = "STATUS_CODE_ERROR" if row["status_code"] == 2 else "STATUS_CODE_UNSET"
            key = (tenant, end - end % (10 * SECOND), row["name"], status)
            calls, total = counts[key]
            counts[key] = (calls + 1, total + end - row["start_time_unix_nano"])
    return {key: (calls, total / 1e9) for key, (calls, total) in counts.items()}


def totals(metrics: list[Keyed]) -> Totals:
    """The same from the operator's points; each must come once."""
    found: Totals = {}
    for tenant, batch in metrics:
        for p in points([batch]):
            assert p["tenant"] == tenant
            if p["name"].endswith("duration"):
                key = (
                    tenant,
                    p["start_time_unix_nano"],
                    p["attributes"]["span.name"],
                    p["attributes"]["status.code"],
                )
                assert key not in found
                found[key] = (p["count"], p["sum"])
    return found


def build(
    items: list[Any], metrics: list[Keyed], options: SpanMetricsSettings, late: list[Keyed] | None = None
) -> tuple[Dataflow, Ledger]:
    """The flow under test: source → span_metrics → sinks."""
    ledger = Ledger()
    flow = Dataflow("test")
    up = op.input("in", flow, TestingSource(items))
    out = span_metrics("red", up, options, clock=lambda: NOW, ledger=ledger)
    op.output("metrics", out.metrics, _TruncatingSink(metrics))
    op.output("late", out.late, TestingSink([] if late is None else late))
    return flow, ledger


class _TruncatingPartition(StatefulSinkPartition[TelemetryBatch, int]):
    def __init__(self, part: str, out: list[Keyed], resume: int | None) -> None:
        self._part, self._out, self._count = part, out, resume or 0
        # What an aborted epoch wrote is taken back, as a transactional sink does.
        mine = [i for i, (key, _) in enumerate(out) if key == part][self._count :]
        for i in reversed(mine):
            del out[i]

    @override
    def write_batch(self, values: list[TelemetryBatch]) -> None:
        self._out.extend((self._part, value) for value in values)
        self._count += len(values)

    @override
    def snapshot(self) -> int:
        return self._count


class _TruncatingSink(FixedPartitionedSink[TelemetryBatch, int]):
    def __init__(self, out: list[Keyed]) -> None:
        self._out = out

    @override
    def list_parts(self) -> list[str]:
        return sorted(TENANTS)

    @override
    def part_fn(self, item_key: str) -> int:
        return sorted(TENANTS).index(item_key)

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _TruncatingPartition:
        return _TruncatingPartition(for_part, self._out, resume_state)


def _run_cluster(workers: int) -> Callable[..., None]:
    def run(flow: Dataflow, **options: Any) -> None:
        cluster_main(flow, [], 0, worker_count_per_proc=workers, **options)

    return run


@pytest.fixture(params=["run_main", "cluster of 1", "cluster of 3"])
def entry_point(request: pytest.FixtureRequest) -> Callable[..., None]:
    """The same test on one worker and on several."""
    runs: dict[str, Callable[..., None]] = {
        "run_main": run_main,
        "cluster of 1": _run_cluster(1),
        "cluster of 3": _run_cluster(3),
    }
    return runs[request.param]


def test_totals_are_exact_on_any_number_of_workers(entry_point: Callable[..., None]) -> None:
    """Every span is in exactly one point, and the ledger knows every point."""
    keyed, metrics = stream(), list[Keyed]()
    flow, ledger = build(keyed, metrics, settings())
    entry_point(flow)
    assert totals(metrics) == expected(keyed)
    rows = [row for row in ledger.rows() if row.outcome is Outcome.DERIVED]
    assert sum(row.count for row in rows) == sum(batch.num_rows for _, batch in metrics)
    assert {row.component for row in rows} == {"test.red"}


def test_other_signals_are_ignored(entry_point: Callable[..., None]) -> None:
    """A stream of mixed signals is welcome."""
    keyed, metrics = stream(8), list[Keyed]()
    mixed = [item for pair in keyed for item in (pair, (pair[0], TelemetryBatch.empty(Signal.LOGS)))]
    entry_point(build(mixed, metrics, settings())[0])
    assert totals(metrics) == expected(keyed)


@pytest.mark.parametrize("option", ["drop", "side_output"])
def test_late_spans_come_out_and_are_counted(option: str) -> None:
    """Refused spans leave by the late stream if asked for; the ledger names reason and owner, and stays balanced."""
    late_span, early_span = Span(EPOCH), Span(NOW + 3600 * SECOND)
    items = [("acme", spans_batch([Span(EPOCH + 60 * SECOND)])), ("acme", spans_batch([late_span, early_span]))]
    metrics, late = list[Keyed](), list[Keyed]()
    flow, ledger = build(items, metrics, settings(late=option), late)
    run_main(flow)
    found = [batch.records["end_time_unix_nano"].to_pylist() for _, batch in late]
    assert found == ([] if option == "drop" else [[late_span.end], [early_span.end]])
    dropped = {(r.tenant, r.component, r.reason): r.count for r in ledger.rows() if r.outcome is Outcome.DROPPED}
    assert dropped == {("acme", "test.red", "late"): 1, ("acme", "test.red", "ahead of clock"): 1}
    assert ledger.balance()["acme", Signal.TRACES].in_flight == 0


@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
def test_a_crash_changes_nothing(tmp_path: Path, temporality: str) -> None:
    """Aborted in the middle and resumed from recovery, the points are those of an undisturbed run."""
    keyed, undisturbed, metrics = stream(), list[Keyed](), list[Keyed]()
    options = settings(temporality=temporality)
    run_main(build(keyed, undisturbed, options)[0])
    init_db_dir(tmp_path, 1)
    # The source resumes one item before the abort: put a harmless one there.
    items = [*keyed[:17], ("acme", TelemetryBatch.empty(Signal.TRACES)), TestingSource.ABORT(), *keyed[17:]]
    run = {"recovery_config": _recovery(tmp_path), "epoch_interval": timedelta(0)}
    run_main(build(items, metrics, options)[0], **run)
    assert 0 < len(metrics) < len(undisturbed)
    run_main(build(items, metrics, options)[0], **run)
    assert _plain(metrics) == _plain(undisturbed)


def test_a_drain_splits_no_window_and_workers_may_change(tmp_path: Path) -> None:
    """Stopped by end of input twice and resumed with another number of workers: no window is cut, totals are exact."""
    keyed, metrics = stream(), list[Keyed]()
    items: list[Any] = [*keyed[:13], TestingSource.EOF(), *keyed[13:29], TestingSource.EOF(), *keyed[29:]]
    init_db_dir(tmp_path, 2)
    for workers, last in ((1, False), (3, False), (2, True)):
        _run_cluster(workers)(
            build(items, metrics, settings(emit_on_eof=last))[0],
            recovery_config=_recovery(tmp_path),
            epoch_interval=timedelta(0),
        )
    assert totals(metrics) == expected(keyed)


@pytest.mark.parametrize("late", ["drop", "side_output"])
def test_two_processes(tmp_path: Path, late: str) -> None:
    """A real cluster of two processes, partial aggregates or whole spans crossing between them: the same totals."""
    with socket.socket() as one, socket.socket() as two:
        for s in (one, two):
            s.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in (one, two)]
    script = tmp_path / "worker.py"
    script.write_text(
        textwrap.dedent("""
            import pickle, sys
            from bytewax.testing import cluster_main
            from tests.operators.test_span_metrics_flow import build, settings, stream

            metrics = []
            number = int(sys.argv[1])
            options = settings(late=sys.argv[3])
            cluster_main(build(stream(), metrics, options)[0], sys.argv[4:], number)
            with open(sys.argv[2], "wb") as file:
                pickle.dump(metrics, file)
        """)
    )
    outs = [tmp_path / f"{n}.pickle" for n in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(n), str(out), late, *addresses],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for n, out in enumerate(outs)
    ]
    try:
        assert [process.wait(60) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    parts: list[list[Keyed]] = [pickle.loads(out.read_bytes()) for out in outs]  # noqa: S301
    assert all(parts), "each process has keys of its own"
    assert totals(parts[0] + parts[1]) == expected(stream())


class _Quiet(StatelessSourcePartition[Keyed]):
    """One batch, then silence until something has come out."""

    def __init__(self, out: list[Keyed]) -> None:
        self._out, self._sent, self._give_up = out, False, time.monotonic() + 60

    @override
    def next_batch(self) -> list[Keyed]:
        if not self._sent:
            self._sent = True
            return [("acme", spans_batch([Span(time.time_ns())]))]
        if self._out or time.monotonic() > self._give_up:
            raise StopIteration
        return []

    @override
    def next_awake(self) -> datetime | None:
        return datetime.now(UTC) + timedelta(milliseconds=5)


class _QuietSource(DynamicSource[Keyed]):
    def __init__(self, out: list[Keyed]) -> None:
        self._out = out

    @override
    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Quiet:
        return _Quiet(self._out)


def test_windows_close_when_traffic_stops() -> None:
    """The engine's timer wakes the step, and the system clock closes the window."""
    metrics = list[Keyed]()
    flow = Dataflow("quiet")
    up = op.input("in", flow, _QuietSource(metrics))
    options = settings(window="50ms", lateness="0s", idle_timeout="10ms", emit_on_eof=False)
    op.output("metrics", span_metrics("red", up, options).metrics, TestingSink(metrics))
    run_main(flow)
    assert [p["value_int"] for _, batch in metrics for p in points([batch])] == [1, None]


def _recovery(path: Path) -> RecoveryConfig:
    return RecoveryConfig(str(path))


def _plain(metrics: list[Keyed]) -> list[Any]:
    """Points in an order that the interleaving of keys does not change."""
    return sorted(repr((key, sorted(p.items(), key=repr))) for key, batch in metrics for p in points([batch]))
