"""Remote write requests out of batches: samples per CPU second, counters and exponential histograms.

    python -m bench.bench_remote_write

8192 points of as many series with four attributes each, cumulative; each batch is the series' next point. The reference
builds the same `WriteRequest` with the official protobuf library, point by point, from a request that was parsed before
its time is taken, and is given the labels of the series that it has seen, as telflow remembers them, too.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from bench import report
from bench.bench_metric_streams import ROWS, batches
from bench.timing import best_cpu_s
from connectors.prometheus import LabelSettings
from connectors.prometheus.remote_write import Translator
from telflow.batch import TelemetryBatch
from telflow.codec import encode
from tests.connectors.prometheus.write_request import WriteRequest, read

BATCHES = 10
KINDS = ("sum", "exponential_histogram")
_CUMULATIVE = 2
_ROUNDS = 3


def points_of(kind: str) -> list[TelemetryBatch]:
    """One batch of points again and again, 10 s later each time, cumulative."""
    [first] = batches(kind, 1)
    first = first.with_column("aggregation_temporality", pa.array(np.full(ROWS, _CUMULATIVE), pa.int32()))
    times = first.records["time_unix_nano"].to_numpy()
    later = [times + np.uint64(turn * 10_000_000_000) for turn in range(BATCHES)]
    return [first.with_column("time_unix_nano", pa.array(each)) for each in later]


def translated(made: list[TelemetryBatch]) -> list[bytes]:
    translator = Translator(LabelSettings(tenant_label=None), target_info=False)
    return [translator.request(batch).body for batch in made]


def reference(parsed: list[Any]) -> list[bytes]:
    """The same with messages."""
    known: dict[bytes, list[tuple[str, str]]] = {}
    out = []
    for request in parsed:
        found = WriteRequest()
        for of_resource in request.resource_metrics:
            for of_scope in of_resource.scope_metrics:
                for metric in of_scope.metrics:
                    for point in getattr(metric, metric.WhichOneof("data")).data_points:
                        _add(found, known, of_resource, of_scope.scope, metric, point)
        out.append(found.SerializeToString())
    return out


def _add(  # noqa: PLR0917 - what a point belongs to
    found: Any, known: dict[bytes, list[tuple[str, str]]], of_resource: Any, scope: Any, metric: Any, point: Any
) -> None:
    own = of_resource.resource.attributes[0].value.string_value
    key = own.encode() + b"".join(attribute.SerializeToString() for attribute in point.attributes)
    labels = known.get(key)
    if labels is None:
        name = re.sub("[^a-zA-Z0-9]+", "_", metric.name) + ("_total" if metric.WhichOneof("data") == "sum" else "")
        labels = [("__name__", name), ("job", own), ("otel_scope_name", scope.name)]
        for attribute in point.attributes:
            value = attribute.value
            text = str(getattr(value, value.WhichOneof("value")))
            labels.append((re.sub("[^a-zA-Z0-9]+", "_", attribute.key), text))
        known[key] = labels = sorted(labels)
    series = found.timeseries.add()
    for label, text in labels:
        series.labels.add(name=label, value=text)
    time_ms = point.time_unix_nano // 1_000_000
    if metric.WhichOneof("data") == "sum":
        series.samples.add(value=float(point.as_int), timestamp=time_ms)
        return
    native = series.histograms.add(count_int=point.count, sum=point.sum, schema=point.scale, timestamp=time_ms)
    native.zero_count_int, native.zero_threshold = point.zero_count, point.zero_threshold or 1e-128
    native.positive_spans.add(offset=point.positive.offset + 1, length=len(point.positive.bucket_counts))
    before = 0
    for count in point.positive.bucket_counts:
        native.positive_deltas.append(count - before)
        before = count


def main() -> None:
    pa.set_cpu_count(1)
    figures: dict[str, Any] = {"series": ROWS, "rows_per_batch": ROWS}
    for kind in KINDS:
        made = points_of(kind)
        parsed = [ExportMetricsServiceRequest.FromString(encode(batch)) for batch in made]
        for mine, theirs in zip(translated(made)[:2], reference(parsed[:2]), strict=True):
            found = read(mine)
            assert len(found) == ROWS
            assert found == read(theirs), kind
        best = best_cpu_s(
            {"": lambda m=made: translated(m), "reference_": lambda p=parsed: reference(p)},  # type: ignore[misc]
            _ROUNDS,
        )
        samples = ROWS * BATCHES
        figures |= {f"{kind}_{name}samples_per_cpu_s": round(samples / cpu) for name, cpu in best.items()}
        figures[f"{kind}_times_the_reference"] = round(best["reference_"] / best[""], 2)
    for name, value in figures.items():
        print(f"{name:50} {value}")
    print(report.write("remote_write", figures))


if __name__ == "__main__":
    main()
