"""The archive: write and read speed against delta-rs's own writer, a whole replay compared, two queries.

`python -m bench.bench_archive [--spans N]`: a million spans by default, no two of them equal. Asserts that every
one comes back as it was before it reports anything. Rates are rows per CPU-second of this process, all its threads
together.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main
from deltalake import DeltaTable, WriterProperties, write_deltalake

from bench import payloads, report
from connectors.archive import ArchiveSettings, ArchiveSink
from connectors.archive.layout import to_rows
from connectors.archive.promote import DEFAULT_PROMOTE
from flows.replay import ReplaySettings, build
from telflow import Signal, TelemetryBatch
from telflow.codec import decode

SEED = 7
FLUSH_ROWS = 131_072


def batches(spans: int) -> Iterator[TelemetryBatch]:
    """Batches of 8192 different spans: four decoded payloads, with identifiers and times of their own in each copy."""
    random_ = np.random.default_rng(SEED)
    originals = [decode(payloads.traces(seed=seed), Signal.TRACES, tenant=f"tenant-{seed}") for seed in range(4)]
    for number in range(-(-spans // payloads.RECORDS)):
        batch = originals[number % len(originals)]
        records = batch.records
        for name, width in (("trace_id", 16), ("span_id", 8)):
            fresh = pa.py_buffer(random_.bytes(width * records.num_rows))
            column = pa.Array.from_buffers(pa.binary(width), records.num_rows, [None, fresh])
            records = _with(records, name, column)
        for name in ("start_time_unix_nano", "end_time_unix_nano"):
            later = pc.add(records[name], pa.scalar(number * 60_000_000_000, pa.uint64()))
            records = _with(records, name, later)
        yield batch.with_records(records.slice(0, min(payloads.RECORDS, spans - number * payloads.RECORDS)))


def _with(records: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    at = records.schema.get_field_index(name)
    return records.set_column(at, records.schema.field(at), column)


def fingerprints(batch: TelemetryBatch) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """One hash per record of all it says, resource, scope and tenant included, whatever batch it came in."""
    own = pl.DataFrame(batch.records).drop("resource", "scope").hash_rows(SEED).to_numpy()
    resources = pl.DataFrame(batch.resources).hash_rows(SEED + 1).to_numpy()[batch.records["resource"].to_numpy()]
    scopes = pl.DataFrame(batch.scopes).hash_rows(SEED + 2).to_numpy()[batch.records["scope"].to_numpy()]
    prime = np.uint64(0x9E3779B97F4A7C15)
    mixed: np.ndarray[Any, np.dtype[np.uint64]] = ((own * prime) ^ resources) * prime ^ scopes
    return mixed


class _Fingerprints(StatelessSinkPartition[TelemetryBatch], DynamicSink[TelemetryBatch]):
    """A sink that keeps the records' fingerprints."""

    def __init__(self) -> None:
        self.found: list[np.ndarray[Any, Any]] = []

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Fingerprints:
        del step_id, worker_index, worker_count
        return self

    def write_batch(self, items: list[TelemetryBatch]) -> None:
        self.found += [fingerprints(batch) for batch in items]


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """CPU seconds and wall seconds of `work`, and its result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.process_time() - cpu, time.perf_counter() - wall, result


def write(directory: Path, source: list[TelemetryBatch]) -> dict[str, float]:
    """The sink as a flow uses it, and delta-rs's writer given rows that are ready."""
    sink = ArchiveSink(ArchiveSettings(path=directory / "ours", flush_rows=FLUSH_ROWS))
    part = sink.build_part("bench.archive", sink.list_parts()[0], None)
    spans = sum(batch.num_rows for batch in source)
    ours_cpu_s = ours_wall_s = theirs_cpu_s = convert_cpu_s = 0.0
    per_flush = FLUSH_ROWS // payloads.RECORDS
    properties = WriterProperties(compression="ZSTD", compression_level=1)
    # In turns, so that both meet the same noise.
    for first in range(0, len(source), per_flush):
        some = source[first : first + per_flush]
        cpu_s, wall_s, _ = timed(partial(_write, part, some))
        ours_cpu_s, ours_wall_s = ours_cpu_s + cpu_s, ours_wall_s + wall_s
        cpu_s, _, rows = timed(partial(to_rows, some, DEFAULT_PROMOTE))
        convert_cpu_s += cpu_s
        plain = pa.schema([f.with_type(_plain(f.type)) for f in rows.schema])
        rows = rows.unify_dictionaries().cast(plain)
        append = partial(write_deltalake, mode="append", partition_by=["date"], writer_properties=properties)
        cpu_s, _, _ = timed(partial(append, str(directory / "theirs"), rows))
        theirs_cpu_s += cpu_s
    return {
        "write_rows_per_cpu_s": spans / ours_cpu_s,
        "of_which_columns_rows_per_cpu_s": spans / convert_cpu_s,
        "write_rows_per_s": spans / ours_wall_s,
        "write_deltalake_rows_per_cpu_s": spans / theirs_cpu_s,
        "write_ratio": theirs_cpu_s / ours_cpu_s,
        "bytes_per_row": _size(directory / "ours" / "traces") / spans,
        "write_deltalake_bytes_per_row": _size(directory / "theirs") / spans,
    }


def _write(part: Any, some: list[TelemetryBatch]) -> None:
    part.write_batch(some)
    part.snapshot()


def _plain(dtype: pa.DataType) -> pa.DataType:
    return dtype.value_type if pa.types.is_dictionary(dtype) else dtype


def _size(table: Path) -> int:
    return sum(file.stat().st_size for file in table.rglob("*.parquet"))


def read(archive: Path, expected: np.ndarray[Any, Any]) -> dict[str, float]:
    """A replay that keeps nothing, for its speed; then one that is compared record by record."""
    settings = ReplaySettings(path=archive, signals=(Signal.TRACES,))
    counts: list[int] = []
    cpu_s, wall_s, _ = timed(lambda: run_main(build(settings, _Counts(counts))))
    assert sum(counts) == len(expected)
    table = DeltaTable(str(archive / "traces"))
    plain_cpu_s, _, rows = timed(lambda: sum(b.num_rows for b in table.to_pyarrow_dataset().to_batches()))
    assert rows == len(expected)
    sink = _Fingerprints()
    run_main(build(settings, sink))
    found = np.sort(np.concatenate(sink.found))
    assert len(np.unique(found)) == len(found), "all spans of the payload differ"
    assert np.array_equal(found, expected), "a record came back altered"
    return {
        "replay_rows_per_cpu_s": rows / cpu_s,
        "replay_rows_per_s": rows / wall_s,
        "pyarrow_dataset_rows_per_cpu_s": rows / plain_cpu_s,
        "replayed_equal_percent": 100.0,
    }


class _Counts(StatelessSinkPartition[TelemetryBatch], DynamicSink[TelemetryBatch]):
    """A sink that only counts."""

    def __init__(self, counts: list[int]) -> None:
        self._counts = counts

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Counts:
        del step_id, worker_index, worker_count
        return self

    def write_batch(self, items: list[TelemetryBatch]) -> None:
        self._counts += [batch.num_rows for batch in items]


SQL = """
    SELECT service_name, count(*) AS calls, max(end_time_unix_nano - start_time_unix_nano) AS slowest
    FROM traces WHERE http_route = '/checkout' AND http_response_status_code = 500
    GROUP BY service_name ORDER BY service_name
"""


def queries(archive: Path, source: list[TelemetryBatch]) -> dict[str, float]:
    """The same filtered aggregation in DuckDB and in polars, and counted from the batches."""
    table = DeltaTable(str(archive / "traces"))
    with duckdb.connect() as connection:
        connection.register("traces", table.to_pyarrow_dataset())
        _, duckdb_s, by_duckdb = timed(lambda: connection.execute(SQL).fetchall())
    with pl.SQLContext(traces=pl.scan_delta(table)) as context:
        _, polars_s, by_polars = timed(lambda: context.execute(SQL, eager=True).rows())
    assert by_duckdb == by_polars
    promote = [p for p in DEFAULT_PROMOTE if p.name in {"http_route", "http_response_status_code"}]
    wanted = sum(
        pc.sum(
            pc.and_(pc.equal(rows["http_route"], "/checkout"), pc.equal(rows["http_response_status_code"], 500))
        ).as_py()
        for rows in (to_rows([batch], promote) for batch in source)
    )
    assert sum(row[1] for row in by_duckdb) == wanted > 0
    return {"duckdb_query_ms": duckdb_s * 1e3, "polars_query_ms": polars_s * 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=1_000_000)
    spans = parser.parse_args().spans
    pa.set_cpu_count(1)  # as in a worker
    directory = Path(tempfile.mkdtemp(prefix="telflow-bench-"))
    try:
        source = list(batches(spans))
        expected = np.sort(np.concatenate([fingerprints(batch) for batch in source]))
        figures = {"spans": spans, **write(directory, source)}
        figures |= read(directory / "ours", expected)
        figures |= queries(directory / "ours", source)
    finally:
        shutil.rmtree(directory)
    for name, value in figures.items():
        print(f"{name:34} {value:14,.1f}")
    print(report.write("archive", figures))


if __name__ == "__main__":
    main()
