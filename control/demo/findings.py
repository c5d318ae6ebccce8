"""What the demo finds behind the gateway: RED per service, and what became of the personal data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from telflow.batch import TelemetryBatch
from telflow.codec import decode
from telflow.schema import Signal

__all__ = ["Sample", "Service", "after", "count", "decoded", "left_over", "red"]

_CALLS = "traces.span.metrics.calls"
_DURATION = "traces.span.metrics.duration"


@dataclass(frozen=True, slots=True)
class Service:
    """Rate, errors and duration of one service's server spans.

    Attributes:
        name: Its `service.name`.
        requests: Server spans.
        per_second: Requests a second over the minute of the demonstration.
        errors: Requests with status ERROR.
        p50_ms: Median duration, interpolated in the histogram.
        p95_ms: 95th percentile of the duration.
    """

    name: str
    requests: int
    per_second: float
    errors: int
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Sample:
    """A value before and after the gateway."""

    place: str
    before: str
    after: str


def decoded(payloads: Iterable[tuple[Signal, bytes]]) -> dict[Signal, TelemetryBatch]:
    """Decode received requests into one batch per signal."""
    batches: dict[Signal, list[TelemetryBatch]] = {}
    for signal, payload in payloads:
        batches.setdefault(signal, []).append(decode(payload, signal))
    return {signal: TelemetryBatch.concat(found) for signal, found in batches.items()}


def count(batches: Mapping[Signal, TelemetryBatch], *, derived: bool) -> dict[Signal, int]:
    """Count the records by signal: those of the span metrics, or all the others."""
    counts = {}
    for signal, batch in batches.items():
        own = (
            int(pc.sum(pc.is_in(batch.column("name"), pa.array([_CALLS, _DURATION]))).as_py() or 0)
            if (signal is Signal.METRICS)
            else 0
        )
        counts[signal] = own if derived else batch.num_rows - own
    return counts


def red(metrics: TelemetryBatch, seconds: float) -> list[Service]:
    """Compute rate, errors and duration per service from the delta points of the span metrics."""
    frame = pl.DataFrame(
        {
            "metric": metrics.column("name"),
            "service": metrics.attribute("service.name"),
            "kind": metrics.attribute("span.kind"),
            "status": metrics.attribute("status.code"),
            "value": metrics.column("value_int"),
            "bucket_counts": metrics.column("bucket_counts"),
            "explicit_bounds": metrics.column("explicit_bounds"),
        }
    ).filter(pl.col("kind") == "SPAN_KIND_SERVER")
    services = []
    for (name,), points in frame.sort("service").group_by("service", maintain_order=True):
        calls = points.filter(pl.col("metric") == _CALLS)
        durations = points.filter(pl.col("metric") == _DURATION)
        requests = int(calls["value"].sum())
        errors = int(calls.filter(pl.col("status") == "STATUS_CODE_ERROR")["value"].sum())
        buckets = np.sum(durations["bucket_counts"].to_list(), axis=0)
        bounds = np.asarray(durations["explicit_bounds"][0].to_list())
        p50, p95 = (_quantile(buckets, bounds, q) * 1000 for q in (0.5, 0.95))
        services.append(Service(str(name), requests, requests / seconds, errors, p50, p95))
    return services


def after(samples: Mapping[str, Mapping[str, str]], batches: Mapping[Signal, TelemetryBatch]) -> list[Sample]:
    """Look up what the sampled values have become, by the id of their span."""
    return [
        Sample(place, sample["value"], _value(place, _of_span(batches, place, sample["span_id"])))
        for place, sample in samples.items()
    ]


def left_over(payloads: Iterable[tuple[Signal, bytes]], values: Iterable[str]) -> list[str]:
    """Return the values that still stand somewhere in the payloads."""
    everything = b"\0".join(payload for _, payload in payloads)
    return [value for value in values if value.encode() in everything]


def _of_span(batches: Mapping[Signal, TelemetryBatch], place: str, span_id: str) -> dict[str, Any]:
    batch = batches[Signal.LOGS if place == "log body" else Signal.TRACES]
    here = pc.equal(batch.column("span_id"), pa.scalar(bytes.fromhex(span_id), pa.binary(8)))
    found: list[dict[str, Any]] = batch.filter(here).records.to_pylist()
    return found[0] if found else {}


def _value(place: str, record: dict[str, Any]) -> str:
    if not record:
        return "(not found)"
    match place:
        case "log body":
            return str(record["body"]["str"])
        case "status message":
            return str(record["status_message"])
        case "event attribute":
            return next(_texts(record["events"][0]["attributes"], "exception.message"), "(deleted)")
        case "array in an attribute":
            return next(_texts(record["attributes"], "http.request.header.authorization"), "(deleted)")
        case _:
            return next(_texts(record["attributes"], "user.email"), "(deleted)")


def _texts(attributes: list[dict[str, Any]], key: str) -> Iterator[str]:
    for attribute in attributes:
        if attribute["key"] == key:
            nested = attribute["bytes"]
            yield (
                attribute["str"] if nested is None else nested.decode(errors="replace").strip("\n\r\t\x00 \x19\x10\x08")
            )


def _quantile(buckets: np.ndarray[Any, Any], bounds: np.ndarray[Any, Any], q: float) -> float:
    """Interpolate linearly in the bucket that holds the quantile, as Prometheus' histogram_quantile does."""
    rank = q * buckets.sum()
    upto = np.cumsum(buckets)
    i = int(np.searchsorted(upto, rank))
    if i >= len(bounds):
        return float(bounds[-1])
    low = float(bounds[i - 1]) if i else 0.0
    return low + (float(bounds[i]) - low) * float((rank - (upto[i] - buckets[i])) / buckets[i])
