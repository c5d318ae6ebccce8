"""Canaries: a made-up address and a test card number, each place of a request that can hide them, and a search.

Also for tests of flows: put a canary into a request, let it run, search what came out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from telflow.batch import TelemetryBatch
from telflow.schema import Signal
from tests.batches import any_value, key_value
from tests.oracle import REQUESTS

__all__ = ["BYTES_FORMS", "LOCATIONS", "NUMBER_FORMS", "TEXT_FORMS", "buffers", "leaks", "request_with"]

TEXT_FORMS: dict[str, str] = {
    "email": "canary.bird@example.com",
    "email_in_text": "sent to <canary.bird@example.com>, ok",
    "email_in_url": "https://shop.example/?q=canary.bird%40example.com&x=1",
    "card": "4111111111111111",
    "card_spaced": "paid with 4111 1111 1111 1111 today",
    "card_dashed": "4111-1111-1111-1111",
}
NUMBER_FORMS: dict[str, float] = {"card_int": 4111111111111111, "card_double": 4111111111111111.0}
BYTES_FORMS: dict[str, bytes] = {
    "email_bytes": b"canary.bird@example.com",
    "card_bytes_in_binary": b"\xff\x00 4111111111111111 \xfe",
}
_PLAIN = [b"canary.bird", b"4111111111111111", b"4111 1111", b"4111-1111"]
_CARD = 4111111111111111
_VARINT = bytes([*(_CARD >> shift & 127 | 128 for shift in range(0, 49, 7)), _CARD >> 49])
_NEEDLES = [*_PLAIN, struct.pack("<q", _CARD), struct.pack("<d", float(_CARD)), _VARINT]

Setter = Callable[[Any, Any], None]


def _follow(request: Any, path: str) -> tuple[Any, str]:
    """The message a path leads to, by the last elements of repeated fields, and the field the path ends with."""
    *steps, last = path.split(".")
    message = request
    for step in steps:
        inner = getattr(message, step)
        message = inner if hasattr(inner, "DESCRIPTOR") else (inner[-1] if inner else inner.add())
    return message, last


def _sets(path: str) -> Setter:
    """Set a text field."""

    def put(request: Any, canary: Any) -> None:
        message, last = _follow(request, path)
        if message.DESCRIPTOR.fields_by_name[last].is_repeated:
            getattr(message, last).append(canary)
        else:
            setattr(message, last, canary)

    return put


def _adds(path: str, make: Callable[[Any], Any]) -> Setter:
    """Add an attribute made of the canary."""

    def put(request: Any, canary: Any) -> None:
        message, last = _follow(request, path)
        getattr(message, last).append(make(canary))

    return put


def _body(make: Callable[[Any], Any]) -> Setter:
    def put(request: Any, canary: Any) -> None:
        request.resource_logs[0].scope_logs[0].log_records[0].body.CopyFrom(any_value(make(canary)))

    return put


_SPAN = "resource_spans.scope_spans.spans"
_LOG = "resource_logs.scope_logs.log_records"
_METRIC = "resource_metrics.scope_metrics.metrics"
_POINT = f"{_METRIC}.sum.data_points"

_TEXTS = {
    Signal.TRACES: [
        *(f"{_SPAN}.{f}" for f in ("name", "trace_state", "status.message")),
        *(f"{_SPAN}.{f}" for f in ("events.name", "links.trace_state")),
        "resource_spans.schema_url",
        "resource_spans.scope_spans.schema_url",
        *(f"resource_spans.scope_spans.scope.{f}" for f in ("name", "version")),
        *(f"resource_spans.resource.entity_refs.{f}" for f in ("type", "schema_url", "id_keys", "description_keys")),
    ],
    Signal.LOGS: [
        *(f"{_LOG}.{f}" for f in ("severity_text", "event_name")),
        "resource_logs.schema_url",
        "resource_logs.scope_logs.scope.name",
    ],
    Signal.METRICS: [
        *(f"{_METRIC}.{f}" for f in ("name", "description", "unit")),
        "resource_metrics.schema_url",
        "resource_metrics.scope_metrics.scope.version",
    ],
}
_ATTRIBUTES = {
    Signal.TRACES: [
        f"{_SPAN}.attributes",
        f"{_SPAN}.events.attributes",
        f"{_SPAN}.links.attributes",
        "resource_spans.resource.attributes",
        "resource_spans.scope_spans.scope.attributes",
    ],
    Signal.LOGS: [f"{_LOG}.attributes", "resource_logs.resource.attributes"],
    Signal.METRICS: [
        f"{_POINT}.attributes",
        f"{_POINT}.exemplars.filtered_attributes",
        f"{_METRIC}.metadata",
        f"{_METRIC}.gauge.data_points.attributes",
        f"{_METRIC}.histogram.data_points.attributes",
        f"{_METRIC}.exponential_histogram.data_points.attributes",
        f"{_METRIC}.summary.data_points.attributes",
    ],
}
_IDS = {
    Signal.TRACES: [
        *(f"{_SPAN}.{f}" for f in ("trace_id", "span_id", "parent_span_id")),
        *(f"{_SPAN}.links.{f}" for f in ("trace_id", "span_id")),
    ],
    Signal.LOGS: [f"{_LOG}.trace_id", f"{_LOG}.span_id"],
    Signal.METRICS: [f"{_POINT}.exemplars.trace_id", f"{_POINT}.exemplars.span_id"],
}
_SHAPES: dict[str, Callable[[Any], Any]] = {
    "value": lambda c: key_value("note", c),
    "in array": lambda c: key_value("note", ["x", c, 1]),
    "in map": lambda c: key_value("note", {"a": 1, "b": c}),
    "deep": lambda c: key_value("note", [{"a": [[{"b": [c]}]]}, True]),
}


def _raw(canary: Any) -> Any:
    raw = key_value("note", canary)
    raw.key_strindex = 3
    return raw


def _key(canary: str) -> Any:
    return key_value(canary, 1)


def _nested_key(canary: str) -> Any:
    return key_value("note", {"a": {canary: 1}})


def _raw_key(canary: str) -> Any:
    raw = key_value(canary, "x")
    raw.key_strindex = 3
    return raw


def _locations() -> Iterator[tuple[Signal, str, Setter, frozenset[type]]]:
    any_kind = frozenset([str, float, bytes])
    for signal, paths in _TEXTS.items():
        for path in paths:
            yield signal, path, _sets(path), frozenset([str])
    for signal, paths in _IDS.items():
        for path in paths:
            yield signal, path, _sets(path), frozenset([bytes])
    for signal, paths in _ATTRIBUTES.items():
        for path in paths:
            for name, make in {**_SHAPES, "raw": _raw}.items():
                yield signal, f"{path} {name}", _adds(path, make), any_kind
            for name, make in {"key": _key, "nested key": _nested_key, "raw key": _raw_key}.items():
                yield signal, f"{path} {name}", _adds(path, make), frozenset([str])
    bodies: dict[str, Callable[[Any], Any]] = {
        "value": lambda c: c,
        "in array": lambda c: [c, "x"],
        "in map": lambda c: {"message": "x", "who": c},
        "deep": lambda c: {"a": [{"b": {"c": [c]}}]},
    }
    for name, wrap in bodies.items():
        yield Signal.LOGS, f"body {name}", _body(wrap), any_kind
    yield Signal.LOGS, "body key", _body(lambda c: {c: "x"}), frozenset([str])


LOCATIONS = list(_locations())
"""(signal, name, setter, kinds): setter(request, canary) puts a canary of one of the kinds there."""


def request_with(signal: Signal, put: Setter, canary: Any) -> Any:
    """A request of three records, with the canary somewhere in the last or in what it belongs to."""
    request: Any = REQUESTS[signal]()
    if signal is Signal.TRACES:
        scope = request.resource_spans.add().scope_spans.add()
        for name in ("GET /cart", "GET /pay", "GET /end"):
            span = scope.spans.add(name=name, trace_id=bytes(range(16)), span_id=bytes(range(1, 9)))
            span.attributes.append(key_value("http.route", name))
    elif signal is Signal.LOGS:
        scope = request.resource_logs.add().scope_logs.add()
        for text in ("one", "two", "three"):
            scope.log_records.add(event_name=text, attributes=[key_value("n", 1), key_value("t", text)])
    else:
        scope = request.resource_metrics.add().scope_metrics.add()
        metric = scope.metrics.add(name="http.requests")
        for number in (1, 2):
            metric.gauge.data_points.add(as_int=number, attributes=[key_value("n", number)])
        scope.metrics.add(name="other")
    put(request, canary)
    if signal is Signal.METRICS and scope.metrics[-1].WhichOneof("data") is None:
        scope.metrics[-1].gauge.data_points.add(as_int=3)
    return request


def buffers(batch: TelemetryBatch) -> Iterator[bytes]:
    """The raw content of every buffer of a batch."""
    for table in (batch.records, batch.resources, batch.scopes):
        for column in table.columns:
            yield from (buffer.to_pybytes() for buffer in column.buffers() if buffer is not None)


def leaks(data: bytes) -> list[bytes]:
    """Which forms of the canaries the bytes hold."""
    return [needle for needle in _NEEDLES if needle in data]
