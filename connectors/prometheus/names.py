"""Names and labels as Prometheus spells them, from those of OpenTelemetry.

Rules: OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility", section "OTLP Metric points to
Prometheus"; units: UCUM, "Case-sensitive symbols", in the words that Prometheus uses.
"""

from __future__ import annotations

import enum
import functools
import json
import re
from decimal import Decimal

__all__ = ["Kind", "family_name", "label_name", "label_set", "number_text", "unit_words"]

_NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9:_]|_+")
_NOT_IN_LABEL = re.compile(r"[^a-zA-Z0-9_]|_+")
_RUNS = re.compile(r"_+")
_BRACKETS = re.compile(r"\{[^}]*\}")
_TOTAL = "_total"

_UNITS = {
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "GiBy": "gibibytes",
    "TiBy": "tibibytes",
    "KBy": "kilobytes",
    "kBy": "kilobytes",
    "MBy": "megabytes",
    "GBy": "gigabytes",
    "TBy": "terabytes",
    "m": "meters",
    "V": "volts",
    "A": "amperes",
    "J": "joules",
    "W": "watts",
    "g": "grams",
    "Cel": "celsius",
    "Hz": "hertz",
    "%": "percent",
    "1": "",
}
_PER = {"s": "second", "m": "minute", "min": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}


class Kind(enum.IntEnum):
    """Type of a metric family: `MetricMetadata.MetricType` of Prometheus' remote write protocol."""

    UNKNOWN = 0
    COUNTER = 1
    GAUGE = 2
    HISTOGRAM = 3
    SUMMARY = 5


@functools.lru_cache(maxsize=4096)
def unit_words(unit: str) -> str:
    """Return a unit in Prometheus' words; empty when there is none to name.

    >>> unit_words("ms"), unit_words("By/s"), unit_words("{request}/min"), unit_words("{call}"), unit_words("1")
    ('milliseconds', 'bytes_per_second', 'per_minute', '', '')
    """
    main, slash, per = _BRACKETS.sub("", unit).partition("/")
    words = _words(_UNITS.get(main.strip(), main))
    if slash and (below := _words(_PER.get(per.strip(), per))):
        words = f"{words}_per_{below}" if words else f"per_{below}"
    return words


def _words(text: str) -> str:
    return _RUNS.sub("_", _NOT_IN_LABEL.sub("_", text)).strip("_")


@functools.lru_cache(maxsize=65_536)
def family_name(name: str, unit: str, kind: Kind, *, suffixes: bool = True) -> str:
    """Return the name of a metric's family, with unit and `_total` where they belong and are wanted.

    >>> family_name("traces.span.metrics.duration", "s", Kind.HISTOGRAM)
    'traces_span_metrics_duration_seconds'
    >>> family_name("http.server.requests", "{request}", Kind.COUNTER), family_name("cpu", "1", Kind.GAUGE)
    ('http_server_requests_total', 'cpu_ratio')
    >>> family_name("2nd--try", "", Kind.GAUGE)
    '_2nd_try'
    """
    found = _RUNS.sub("_", _NOT_IN_NAME.sub("_", name))
    if not found or found[0].isdigit():
        found = f"_{found}"
    if not suffixes:
        return found
    if kind is Kind.COUNTER:
        found = found.removesuffix(_TOTAL)
    words = "ratio" if kind is Kind.GAUGE and unit.strip() == "1" else unit_words(unit)
    if words and f"_{words}_" not in f"_{found}_":
        found = f"{found.removesuffix('_')}_{words}"
    return found + _TOTAL if kind is Kind.COUNTER else found


@functools.lru_cache(maxsize=65_536)
def label_name(key: str) -> str:
    """Return an attribute's key as the name of a label.

    >>> label_name("http.response..status_code"), label_name("1st")
    ('http_response_status_code', 'key_1st')
    """
    found = _RUNS.sub("_", _NOT_IN_LABEL.sub("_", key))
    return f"key_{found}" if not found or found[0].isdigit() else found


def label_set(attributes: str) -> dict[str, str]:
    """Return the labels of attributes, which are one JSON object (`telflow.attributes_json`).

    Keys that become the same name have their values joined by a semicolon, in the order of the keys. A label without a
    value is none.

    >>> label_set('{"b.c":2,"b-c":"x","ok":true,"list":["a",1.5]}')
    {'b_c': 'x;2', 'ok': 'true', 'list': '["a",1.5]'}
    """
    pairs: _Pairs = json.loads(attributes, object_pairs_hook=_Pairs, parse_float=_Number, parse_int=_Number)
    found: dict[str, list[tuple[str, str]]] = {}
    for key, value in pairs:
        found.setdefault(label_name(key), []).append((key, _text(value)))
    return {name: text for name, values in found.items() if (text := ";".join(v for _, v in sorted(values)))}


class _Number(str):
    """Digits that were a number."""

    __slots__ = ()


class _Pairs(list[tuple[str, object]]):
    """An object's members, repeated keys included."""


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return str(value)
        case _:
            return _json(value)


def _json(value: object) -> str:
    match value:
        case _Number():
            return str(value)
        case _Pairs():
            return "{" + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{_json(v)}" for k, v in value) + "}"
        case list():
            return "[" + ",".join(_json(item) for item in value) + "]"
        case _:
            return json.dumps(value, ensure_ascii=False)


def number_text(value: float) -> str:
    """Return a bound or quantile as Prometheus' own libraries write it.

    >>> [number_text(value) for value in (0.005, 1.0, 2500.0, float("inf"))]
    ['0.005', '1', '2500', '+Inf']
    """
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    if value != value:  # noqa: PLR0124 - NaN
        return "NaN"
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
