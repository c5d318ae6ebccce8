"""service_graph: exact counts first, then spans per CPU second, in the dataflow of one worker.

8192-span batches: the client's and the server's span of each request, in batches of their own, over 400 pairs of
services. The reference pairs and counts the same spans in dictionaries, from rows read before its time is taken.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import bytewax.operators as op
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

from bench import report
from bench.timing import best_cpu_s
from operators import ServiceGraphSettings, service_graph
from telflow.accounting import Ledger
from telflow.batch import TelemetryBatch
from telflow.columns import attribute_lists, fill_record_batch
from telflow.schema import RECORD_SCHEMAS, RESOURCES, SCOPES, Signal

ROWS, BATCHES, SERVICES = 8192, 100, 20
START = 1_750_000_000_000_000_000
BATCH_NANO = 50_000_000
NOW = START + 86_400_000_000_000
SETTINGS = ServiceGraphSettings.model_validate({"emit_on_eof": True, "idle_timeout": None, "temporality": "delta"})
_TARGET = 300_000
_ROUNDS = 2


def batches(count: int, seed: int = 5) -> list[TelemetryBatch]:
    """Batches of clients' spans, each followed by one of the servers' spans of the same requests."""
    rng = np.random.default_rng(seed)
    names = pa.array([f"service-{n}" for n in range(SERVICES)])
    resources = fill_record_batch(
        RESOURCES, SERVICES, {"tenant": "acme", "attributes": attribute_lists(SERVICES, [("service.name", names)])}
    )
    scopes = fill_record_batch(SCOPES, 1, {"name": "bench"})
    made = []
    for number in range(0, count, 2):
        traces = pa.array([rng.bytes(16) for _ in range(ROWS)], pa.binary(16))
        spans, others = (pa.array([rng.bytes(8) for _ in range(ROWS)], pa.binary(8)) for _ in "cs")
        end = START + number * BATCH_NANO + rng.integers(0, BATCH_NANO, ROWS)
        attributes = attribute_lists(
            ROWS,
            [
                ("http.route", pa.array(["/cart", "/pay"]).take(pa.array(rng.integers(0, 2, ROWS)))),
                ("n", pa.array(end)),
            ],
        )
        for kind, ids, parents in ((3, spans, None), (2, others, spans)):
            columns: dict[str, Any] = {
                "resource": rng.integers(0, SERVICES, ROWS),
                "trace_id": traces,
                "span_id": ids,
                "parent_span_id": parents,
                "kind": kind,
                "attributes": attributes,
                "start_time_unix_nano": end - rng.integers(10**6, 10**9, ROWS),
                "end_time_unix_nano": end,
            }
            records = fill_record_batch(RECORD_SCHEMAS[Signal.TRACES], ROWS, columns)
            made.append(TelemetryBatch(Signal.TRACES, records, resources, scopes))
    return made


def run_operator(made: list[TelemetryBatch]) -> list[TelemetryBatch]:
    """Metrics of a flow of one worker."""
    out: list[tuple[str, TelemetryBatch]] = []
    flow = Dataflow("bench")
    ledger = Ledger()
    up = op.input("in", flow, TestingSource(made))
    op.output("out", service_graph("graph", up, SETTINGS, lambda: NOW, ledger), TestingSink(out))
    run_main(flow)
    return [batch for _, batch in out]


def rows_of(made: list[TelemetryBatch]) -> list[list[tuple[Any, ...]]]:
    """Rows of each batch as tuples."""
    names = ["trace_id", "span_id", "parent_span_id", "kind", "resource"]
    return [list(zip(*(batch.records[name].to_pylist() for name in names), strict=True)) for batch in made]


def run_reference(rows: list[list[tuple[Any, ...]]]) -> Counter[tuple[int, int]]:
    """Requests by client and server, in dictionaries."""
    waiting: dict[tuple[bytes, bytes], int] = {}
    counts = Counter[tuple[int, int]]()
    for batch in rows:
        for trace, span, parent, kind, service in batch:
            if kind == 3:
                waiting[trace, span] = service
            else:
                counts[waiting.pop((trace, parent)), service] += 1
    return counts


def requests_of(metrics: list[TelemetryBatch]) -> Counter[tuple[int, int]]:
    """The same of what the operator made."""
    found = Counter[tuple[int, int]]()
    for batch in metrics:
        for row in batch.records.filter(
            pc.equal(batch.records["name"], "traces_service_graph_request_total")
        ).to_pylist():
            labels = {a["key"]: a["str"] for a in row["attributes"]}
            client, server = (int(labels[side].rpartition("-")[2]) for side in ("client", "server"))
            found[client, server] += row["value_int"]
    return found


def main() -> None:
    pa.set_cpu_count(1)
    made = batches(BATCHES)
    few = made[:20]
    rows = rows_of(few)
    assert requests_of(run_operator(few)) == run_reference(rows)
    best = best_cpu_s({"operator": lambda: run_operator(made), "reference": lambda: run_reference(rows)}, _ROUNDS)
    figures = {
        "pairs_of_services": SERVICES**2,
        "rows_per_batch": ROWS,
        "spans_per_cpu_s": round(ROWS * len(made) / best["operator"]),
        "reference_spans_per_cpu_s_already_read": round(ROWS * len(few) / best["reference"]),
        "target_spans_per_cpu_s": _TARGET,
    }
    for name, value in figures.items():
        print(f"{name:40} {value}")
    print(report.write("service_graph", figures))


if __name__ == "__main__":
    main()
