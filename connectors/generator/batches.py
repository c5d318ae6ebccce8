"""Made-up batches and requests: each is a function of the settings, its number and the start time alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.generator import columns as c
from connectors.generator.settings import GeneratorSettings
from telflow.batch import TelemetryBatch
from telflow.codec import encode
from telflow.schema import RECORD_SCHEMAS, MetricType, Signal

__all__ = ["GeneratedRequest", "generate_batch", "generate_batches", "generate_requests"]

_SPANS_PER_TRACE = 6
_SPAN_NAMES = ("GET /products", "POST /checkout", "GET /cart", "SELECT products", "publish orders", "charge card")
_MESSAGES = ("order placed", "cache miss", "payment retried", "session expired", "stock checked", "mail queued")
_SERVER, _CLIENT, _INTERNAL = 2, 3, 1  # Span.SpanKind
_STATUS_ERROR = 2
_INFO, _WARN, _ERROR = 9, 13, 17  # SeverityNumber
_BOUNDS_MS = (5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0)
_DELTA, _CUMULATIVE = 1, 2  # AggregationTemporality
_METRICS = (
    ("process.memory.usage", "By", MetricType.GAUGE),
    ("system.cpu.utilization", "1", MetricType.GAUGE),
    ("http.server.request.count", "{request}", MetricType.SUM),
    ("app.orders", "{order}", MetricType.SUM),
    ("http.server.request.duration", "ms", MetricType.HISTOGRAM),
)
_NANOSECONDS = 1_000_000_000
_FULL_SPEED_RECORDS_PER_S = 100_000.0  # spacing of time stamps when there is no rate


@dataclass(frozen=True, slots=True)
class GeneratedRequest:
    """One OTLP request.

    Attributes:
        signal: What it carries.
        tenant: Whose data it is; None for nobody's.
        records: How many records it has.
        payload: The Export*ServiceRequest.
    """

    signal: Signal
    tenant: str | None
    records: int
    payload: bytes


def generate_batches(settings: GeneratorSettings, *, first: int = 0) -> Iterator[TelemetryBatch]:
    """Yield batch after batch, as fast as they are taken.

    Args:
        settings: What to make; `total_records` ends it.
        first: Number of the batch to begin with.

    >>> settings = GeneratorSettings(total_records=700, start_time_unix_nano=0)
    >>> [(batch.signal.value, batch.num_rows) for batch in generate_batches(settings)]
    [('traces', 512), ('metrics', 188)]
    """
    start = time.time_ns() if settings.start_time_unix_nano is None else settings.start_time_unix_nano
    number = first
    while True:
        batch = generate_batch(settings, number, start)
        if not batch.num_rows:
            return
        yield batch
        number += 1


def generate_requests(settings: GeneratorSettings) -> Iterator[GeneratedRequest]:
    """Yield the batches of `generate_batches` as OTLP/protobuf requests."""
    for batch in generate_batches(settings):
        tenant = batch.resources["tenant"][0].as_py()
        yield GeneratedRequest(batch.signal, tenant, batch.num_rows, encode(batch))


def generate_batch(settings: GeneratorSettings, number: int, start_time_unix_nano: int) -> TelemetryBatch:
    """Return one batch.

    Args:
        settings: What to make.
        number: Which batch, from 0; the one after the last is empty.
        start_time_unix_nano: Time of the very first record.
    """
    position = number * settings.batch_records
    rows = settings.batch_records
    if settings.total_records is not None:
        rows = max(0, min(rows, settings.total_records - position))
    signal = settings.signals[number % len(settings.signals)]
    if not rows:
        return TelemetryBatch.empty(signal)
    rng = np.random.default_rng([settings.seed, number])
    # Every tenant gets every signal: the signal changes with each batch, the tenant with each round of signals.
    tenant = f"tenant-{number // len(settings.signals) % settings.tenants + 1}" if settings.tenants else None
    rate = settings.records_per_s or _FULL_SPEED_RECORDS_PER_S
    times = start_time_unix_nano + ((position + np.arange(rows)) * (_NANOSECONDS / rate)).astype(np.int64)
    make = {Signal.TRACES: _spans, Signal.LOGS: _log_records, Signal.METRICS: _data_points}[signal]
    made: dict[str, pa.Array] = {
        # The records of a service stand together, as its SDK would send them.
        "resource": c.numbers(np.sort(rng.integers(0, settings.services, rows)), pa.uint32()),
        "scope": c.constant(0, pa.uint32(), rows),
        **make(settings, rng, rows, times.astype(np.uint64)),
    }
    schema = RECORD_SCHEMAS[signal]
    records = pa.RecordBatch.from_arrays(
        [made[f.name] if f.name in made else _blank(f, rows) for f in schema], schema=schema
    )
    return TelemetryBatch(signal, records, c.resources(tenant, settings.services), c.scopes("shop.instrumentation"))


def _blank(field: pa.Field, rows: int) -> pa.Array:
    """A column in which nothing is set."""
    if field.nullable:
        return pa.nulls(rows, field.type)
    if pa.types.is_list(field.type):
        return c.empty_lists(rows, field.type)
    return c.constant("" if pa.types.is_string(field.type) else 0, field.type, rows)


def _spans(
    settings: GeneratorSettings, rng: np.random.Generator, rows: int, times: np.ndarray[Any, np.dtype[np.uint64]]
) -> dict[str, pa.Array]:
    traces = -(-rows // _SPANS_PER_TRACE)
    place = rng.permutation(rows)  # spans of a trace are spread over services
    trace_of, depth = place // _SPANS_PER_TRACE, place % _SPANS_PER_TRACE
    trace_ids = rng.integers(0, 256, (traces, 16), dtype=np.uint8)
    span_ids = rng.integers(0, 256, (rows, 8), dtype=np.uint8)
    trace_ids[:, 0] |= 1  # an identifier of zeros only is invalid
    span_ids[:, 0] |= 1
    parent_place = np.where(depth > 0, place - 1, place)
    duration_ns = rng.lognormal(16.5, 1.0, rows).astype(np.uint64)  # half of them under 15 ms
    failed = rng.random(rows) < settings.error_share
    personal, _, _ = c.personal_data(rng, rows, settings.personal_data_share)
    return {
        "trace_id": c.fixed_binary(trace_ids[trace_of].ravel(), 16),
        "span_id": c.fixed_binary(span_ids[place].ravel(), 8),
        "parent_span_id": c.fixed_binary(span_ids[parent_place].ravel(), 8, null=depth == 0),
        "flags": c.constant(0x101, pa.uint32(), rows),  # sampled; the parent is known not to be remote
        "name": c.pick(rng, _SPAN_NAMES, rows),
        "kind": c.numbers(np.array([_SERVER, _CLIENT, _INTERNAL])[np.minimum(depth, 2)], pa.int32()),
        "start_time_unix_nano": c.numbers(times),
        "end_time_unix_nano": c.numbers(times + duration_ns),
        "attributes": c.attributes([*c.request_slots(rng, rows, settings.attributes), *personal], rows),
        "status_code": c.numbers(np.where(failed, _STATUS_ERROR, 0), pa.int32()),
        "status_message": pc.if_else(pa.array(failed), "upstream timed out", ""),
    }


def _log_records(
    settings: GeneratorSettings, rng: np.random.Generator, rows: int, times: np.ndarray[Any, np.dtype[np.uint64]]
) -> dict[str, pa.Array]:
    draw = rng.random(rows)
    error = draw < settings.error_share
    warn = ~error & (draw > 0.9)  # noqa: PLR2004 - one in ten
    severity = np.where(error, _ERROR, np.where(warn, _WARN, _INFO))
    personal, personal_text, _ = c.personal_data(rng, rows, settings.personal_data_share)
    milliseconds = pa.array(rng.integers(1, 2000, rows))
    body = c.joined(c.pick(rng, _MESSAGES, rows), personal_text, " in ", milliseconds, " ms")
    return {
        "time_unix_nano": c.numbers(times),
        "observed_time_unix_nano": c.numbers(times + np.uint64(1_000_000)),
        "severity_number": c.numbers(severity, pa.int32()),
        "severity_text": pa.array(["INFO", "WARN", "ERROR"]).take(pa.array((severity - _INFO) // 4)),
        "body": c.string_bodies(body),
        "attributes": c.attributes([*c.request_slots(rng, rows, settings.attributes), *personal], rows),
        "flags": c.constant(1, pa.uint32(), rows),
        "trace_id": c.fixed_binary(rng.integers(1, 256, rows * 16, dtype=np.uint8), 16),
        "span_id": c.fixed_binary(rng.integers(1, 256, rows * 8, dtype=np.uint8), 8),
    }


def _data_points(
    settings: GeneratorSettings, rng: np.random.Generator, rows: int, times: np.ndarray[Any, np.dtype[np.uint64]]
) -> dict[str, pa.Array]:
    metric = np.sort(rng.integers(0, len(_METRICS), rows))
    kind = np.array([m[2] for m in _METRICS])[metric]
    gauge, total, histogram = (kind == k for k in (MetricType.GAUGE, MetricType.SUM, MetricType.HISTOGRAM))
    buckets = rng.integers(0, 50, (rows, len(_BOUNDS_MS) + 1)).astype(np.uint64)
    count = buckets.sum(axis=1)
    names, units = (pa.array([m[at] for m in _METRICS], pa.string()).take(pa.array(metric)) for at in (0, 1))
    personal, _, _ = c.personal_data(rng, rows, settings.personal_data_share)
    return {
        "name": names,
        "unit": units,
        "type": c.numbers(kind, pa.uint8()),
        "aggregation_temporality": c.numbers(np.where(total, _CUMULATIVE, np.where(histogram, _DELTA, 0)), pa.int32()),
        "is_monotonic": pa.array(total),
        "attributes": c.attributes([*c.request_slots(rng, rows, settings.attributes), *personal], rows),
        "start_time_unix_nano": c.numbers(np.where(gauge, np.uint64(0), times - np.uint64(10 * _NANOSECONDS))),
        "time_unix_nano": c.numbers(times),
        "value_int": pa.array(rng.integers(0, 1_000_000, rows), mask=~total),
        "value_double": pa.array(np.round(rng.random(rows) * 100, 4), mask=~gauge),
        "count": pa.array(count, mask=~histogram),
        "sum": pa.array(np.round(count * rng.random(rows) * 80, 3), mask=~histogram),
        "min": pa.array(np.round(rng.random(rows) * 5, 3), mask=~histogram),
        "max": pa.array(np.round(1000 + rng.random(rows) * 500, 3), mask=~histogram),
        "bucket_counts": _lists(buckets, histogram, pa.uint64()),
        "explicit_bounds": _lists(np.tile(_BOUNDS_MS, (rows, 1)), histogram, pa.float64()),
    }


def _lists(
    values: np.ndarray[Any, np.dtype[Any]], present: np.ndarray[Any, np.dtype[np.bool_]], dtype: pa.DataType
) -> pa.ListArray:
    """One list per row of a matrix; null where not present."""
    offsets = np.concatenate([[0], np.cumsum(np.where(present, values.shape[1], 0))]).astype(np.int32)
    list_type = pa.list_(pa.field("item", dtype, nullable=False))
    # The offset of a null list is null too; the last one only closes the last list.
    nullable = pa.array(offsets, mask=np.append(~present, False))
    return pa.ListArray.from_arrays(nullable, pa.array(values[present].ravel(), dtype), type=list_type)
