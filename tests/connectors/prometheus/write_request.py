"""`WriteRequest` read by the official protobuf library, and the slow translation that it is compared with."""

from __future__ import annotations

import math
import re
import struct
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]

# Prometheus, prompb/types.proto and remote.proto: name, number, type, repeated, message.
_MESSAGES: dict[str, list[tuple[str, int, str, bool]]] = {
    "Label": [("name", 1, "string", False), ("value", 2, "string", False)],
    "Sample": [("value", 1, "double", False), ("timestamp", 2, "int64", False)],
    "Exemplar": [("labels", 1, "Label", True), ("value", 2, "double", False), ("timestamp", 3, "int64", False)],
    "BucketSpan": [("offset", 1, "sint32", False), ("length", 2, "uint32", False)],
    "Histogram": [
        ("count_int", 1, "uint64", False),
        ("sum", 3, "double", False),
        ("schema", 4, "sint32", False),
        ("zero_threshold", 5, "double", False),
        ("zero_count_int", 6, "uint64", False),
        ("negative_spans", 8, "BucketSpan", True),
        ("negative_deltas", 9, "sint64", True),
        ("positive_spans", 11, "BucketSpan", True),
        ("positive_deltas", 12, "sint64", True),
        ("timestamp", 15, "int64", False),
    ],
    "TimeSeries": [
        ("labels", 1, "Label", True),
        ("samples", 2, "Sample", True),
        ("exemplars", 3, "Exemplar", True),
        ("histograms", 4, "Histogram", True),
    ],
    "MetricMetadata": [
        ("type", 1, "int32", False),
        ("metric_family_name", 2, "string", False),
        ("help", 4, "string", False),
        ("unit", 5, "string", False),
    ],
    "WriteRequest": [("timeseries", 1, "TimeSeries", True), ("metadata", 3, "MetricMetadata", True)],
}


def _write_request() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="telflow_tests_remote.proto", package="prom", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind, repeated in fields:
            made = message.field.add(name=field_name, number=number)
            made.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if kind in _MESSAGES:
                made.type, made.type_name = field.TYPE_MESSAGE, f".prom.{kind}"
            else:
                made.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("prom.WriteRequest"))


WriteRequest = _write_request()

Labels = tuple[tuple[str, str], ...]


def read(body: bytes) -> dict[Labels, list[tuple[int, Any]]]:
    """Samples and histograms by labels, in order; checks what the protocol asks for."""
    request = WriteRequest.FromString(body)
    assert request.SerializeToString(deterministic=True)
    found: dict[Labels, list[tuple[int, Any]]] = {}
    for series in request.timeseries:
        labels = tuple((label.name, label.value) for label in series.labels)
        names = [name for name, _ in labels]
        assert names == sorted(set(names)), "sorted, each once"
        assert all(value for _, value in labels), "none empty"
        assert labels not in found, "each series once"
        entries: list[tuple[int, Any]] = [(s.timestamp, plain(s.value)) for s in series.samples]
        entries += [(h.timestamp, histogram(h)) for h in series.histograms]
        for written in (series.samples, series.histograms):
            times = [entry.timestamp for entry in written]
            assert times == sorted(times), "in order"
        entries.sort(key=lambda entry: entry[0])
        assert len({time for time, _ in entries}) == len(entries), "each time once"
        assert entries
        found[labels] = entries
    return found


def plain(value: float) -> Any:
    """A float that equals itself: stale markers and NaNs by name."""
    if math.isnan(value):
        return "stale" if struct.pack("<d", value) == struct.pack("<d", STALE) else "NaN"
    return value


def histogram(message: Any) -> dict[str, Any]:
    """A native histogram, buckets by number."""
    sides = {}
    for side in ("positive", "negative"):
        counts, index, deltas = {}, 0, list(getattr(message, f"{side}_deltas"))
        running = 0
        for span in getattr(message, f"{side}_spans"):
            index += span.offset
            for _ in range(span.length):
                running += deltas.pop(0)
                counts[index] = running
                index += 1
        assert not deltas
        sides[side] = counts
    return {
        "count": message.count_int,
        "sum": plain(message.sum),
        "schema": message.schema,
        "zero_count": message.zero_count_int,
        "zero_threshold": message.zero_threshold,
        **sides,
    }


def expected(request: Any) -> dict[Labels, list[tuple[int, Any]]]:
    """What an `ExportMetricsServiceRequest` becomes, point by point; of points of one series and time the last."""
    found: dict[Labels, dict[int, Any]] = {}
    for of_resource in request.resource_metrics:
        attributes = {a.key: a.value for a in of_resource.resource.attributes}
        identity = {}
        if "service.name" in attributes:
            space = text(attributes["service.namespace"]) + "/" if "service.namespace" in attributes else ""
            identity["job"] = space + text(attributes["service.name"])
        if "service.instance.id" in attributes:
            identity["instance"] = text(attributes["service.instance.id"])
        for of_scope in of_resource.scope_metrics:
            scope = {"otel_scope_name": of_scope.scope.name, "otel_scope_version": of_scope.scope.version}
            for metric in of_scope.metrics:
                kind = metric.WhichOneof("data")
                data = getattr(metric, kind)
                for point in data.data_points:
                    own = {re.sub("[^a-zA-Z0-9]+", "_", a.key): text(a.value) for a in point.attributes}
                    base = {k: v for k, v in (own | scope | identity).items() if v}
                    for name, extra, value in _samples(metric, kind, data, point):
                        labels = tuple(sorted({"__name__": name, **base, **extra}.items()))
                        found.setdefault(labels, {})[point.time_unix_nano // 1_000_000] = value
    return {labels: sorted(values.items()) for labels, values in found.items()}


def text(value: Any) -> str:
    """A value of the kinds that the tests use."""
    kind = value.WhichOneof("value")
    if kind == "bool_value":
        return "true" if value.bool_value else "false"
    return str(getattr(value, kind))


def _samples(metric: Any, kind: str, data: Any, point: Any) -> list[tuple[str, dict[str, str], Any]]:
    name = re.sub("[^a-zA-Z0-9:]+", "_", metric.name)
    name += {"": "", "s": "_seconds", "By": "_bytes", "{x}": ""}[metric.unit]
    stale = point.flags & 1
    if kind in ("gauge", "sum"):
        name += "_total" if kind == "sum" and data.is_monotonic else ""
        which = point.WhichOneof("value")
        if stale:
            return [(name, {}, "stale")]
        return [(name, {}, plain(float(getattr(point, which))))] if which else []
    if kind == "exponential_histogram":
        return [(name, {}, _native(point, stale))]
    rows: list[tuple[str, dict[str, str], Any]] = [(f"{name}_count", {}, "stale" if stale else float(point.count))]
    if stale:
        rows.append((f"{name}_sum", {}, "stale"))
    elif kind == "summary" or point.HasField("sum"):
        rows.append((f"{name}_sum", {}, plain(point.sum)))
    if kind == "summary":
        if not stale:
            rows += [(name, {"quantile": _short(q.quantile)}, plain(q.value)) for q in point.quantile_values]
        return rows
    rows.append((f"{name}_bucket", {"le": "+Inf"}, "stale" if stale else float(point.count)))
    if not stale:
        upto = 0
        for bound, count in zip(point.explicit_bounds, point.bucket_counts, strict=False):
            upto += count
            rows.append((f"{name}_bucket", {"le": _short(bound)}, float(upto)))
    return rows


def _native(point: Any, stale: int) -> dict[str, Any]:
    if stale:
        empty: dict[int, int] = {}
        zero = point.zero_threshold or 1e-128
        return {
            "count": 0, "sum": "stale", "schema": 0, "zero_count": 0, "zero_threshold": zero,
            "positive": empty, "negative": empty,
        }  # fmt: skip
    shift = max(0, point.scale - 8)
    sides: dict[str, dict[int, int]] = {"positive": {}, "negative": {}}
    for side, counts in sides.items():
        buckets = getattr(point, side)
        for number, count in enumerate(buckets.bucket_counts):
            index = ((buckets.offset + number) >> shift) + 1
            counts[index] = counts.get(index, 0) + count
    return {
        "count": point.count,
        "sum": plain(point.sum) if point.HasField("sum") else "stale",
        "schema": min(point.scale, 8),
        "zero_count": point.zero_count,
        "zero_threshold": point.zero_threshold or 1e-128,
        **sides,
    }


def _short(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)
