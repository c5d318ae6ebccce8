"""From batches to rows: which records count, by which keys, for which key of the stream, as read one by one."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from telflow.aggregation import AggregateSettings
from telflow.aggregation.rows import NO_TENANT, partials_of, split_by_key
from telflow.batch import TelemetryBatch
from telflow.schema import Signal
from tests.spans import EPOCH, SECOND, Span, spans_batch
from tests.strategies import thorough

NOW = EPOCH + 60 * SECOND
_spans = st.lists(
    st.builds(
        Span,
        end=st.sampled_from([EPOCH, EPOCH + 9 * SECOND, EPOCH + 40 * SECOND, NOW + 400 * SECOND]),
        name=st.sampled_from(["GET /", "POST /", "load"]),
        tenant=st.sampled_from(["acme", "globex", None]),
        status=st.sampled_from([None, 1, 2]),
        attributes=st.dictionaries(st.sampled_from(["env", "code"]), st.sampled_from(["dev", 7, "7"]), max_size=2),
        resource_attributes=st.dictionaries(st.just("host"), st.sampled_from(["x", "y"]), max_size=1),
    ),
    max_size=12,
)
_conditions = st.lists(
    st.sampled_from([{"names": ["GET *"]}, {"status": ["error"]}, {"attributes": {"env": ["dev"]}}]), max_size=2
)


def _settings(**options: Any) -> AggregateSettings:
    return AggregateSettings.model_validate(
        {"measures": {"n": {"kind": "count"}}, "window": "10s", "lateness": "20s", "max_ahead": "5m", **options}
    )


def _fits(span: Span, conditions: list[dict[str, Any]]) -> bool:
    found = []
    for condition in conditions:
        if "names" in condition:
            found.append(span.name.startswith("GET "))
        elif "status" in condition:
            found.append(span.status == 2)
        else:
            found.append(span.attributes.get("env") == "dev")
    return any(found) if found else True


_options = st.fixed_dictionaries(
    {
        "conditions": _conditions,
        "required": st.booleans(),
        "default": st.sampled_from([None, "none"]),
        "type": st.sampled_from(["string", "any"]),
        "whole": st.booleans(),
    }
)


class _Expected:
    """Rows by tenant, window and keys, and what is refused; span by span."""

    def __init__(self, spans: list[Span], options: dict[str, Any]) -> None:
        self.rows: collections.Counter[tuple[Any, ...]] = collections.Counter()
        self.refused: collections.Counter[tuple[str | None, str]] = collections.Counter()
        self._options = options
        self._watermark: dict[str | None, int] = {}
        for span in spans:
            if _fits(span, options["conditions"]):
                self._add(span)

    def _add(self, span: Span) -> None:
        if span.end > NOW + 300 * SECOND:
            self.refused[span.tenant, "ahead of clock"] += 1
            return
        self._watermark[span.tenant] = max(self._watermark.get(span.tenant, 0), span.end - 20 * SECOND)
        window = span.end // (10 * SECOND)
        if (window + 1) * 10 * SECOND <= self._watermark[span.tenant]:
            self.refused[span.tenant, "late"] += 1
            return
        value = span.attributes.get("env", self._options["default"])
        if value is None and self._options["required"]:
            return
        if value is not None:
            value = f"{type(value).__name__} {value}" if self._options["type"] == "any" else str(value)
        host = span.resource_attributes.get("host") if self._options["whole"] else None
        self.rows[span.tenant, window, span.name, value, host] += 1


@thorough(60)
@given(spans=_spans, options=_options)
def test_equal_to_reading_one_by_one(spans: list[Span], options: dict[str, Any]) -> None:
    """Conditions, required keys, defaults, kinds of values, resources; late ones and those ahead of the clock apart."""
    env = {"name": "env", **{name: options[name] for name in ("type", "required", "default")}}
    resources = ["host"] if options["whole"] else []
    settings = _settings(by=["name", env], conditions=options["conditions"], resource_attributes=resources)
    partials, out = partials_of(spans_batch(spans), settings, NOW)
    got: collections.Counter[tuple[Any, ...]] = collections.Counter()
    for key, partial in partials:
        assert key == (partial.tenant or NO_TENANT)
        for start, name, value, *resource in zip(
            partial.sifted.starts.tolist(), *(k.to_pylist() for k in partial.keys), strict=True
        ):
            shown = {1: "str ", 3: "int "}[value[0]] + value[1:].decode() if isinstance(value, bytes) else value
            host = resource[0].partition(b"4:host2:\x01")[2].decode() or None if resource else None
            got[partial.tenant, start // (10 * SECOND), name, shown, host] += 1
    expected = _Expected(spans, options)
    assert got == expected.rows
    assert {(r.tenant, r.reason): r.count for r in out} == expected.refused


@thorough(40)
@given(spans=_spans, conditions=_conditions, shards=st.sampled_from([1, 4]))
def test_split_whole_records_by_their_key(spans: list[Span], conditions: list[dict[str, Any]], shards: int) -> None:
    """Every record that fits, once, with its tenant; a series is always in the same shard."""
    settings = _settings(by=["name"], conditions=conditions, shards=shards)
    parts = split_by_key(spans_batch(spans), settings)
    found = [(key, row) for key, part in parts for row in part.records["name"].to_pylist()]
    assert sorted(name for _, name in found) == sorted(s.name for s in spans if _fits(s, conditions))
    place = collections.defaultdict(set)
    for key, name in found:
        place[key.split("/")[0], name].add(key)
    assert all(len(keys) == 1 for keys in place.values())
    for key, part in parts:
        assert {tenant or NO_TENANT for tenant in part.tenants().to_pylist()} == {key.split("/")[0]}


def test_other_signals_and_nothing_give_nothing() -> None:
    """No key learns of an empty batch."""
    settings = _settings(signals=["logs"])
    assert split_by_key(spans_batch([Span(EPOCH)]), settings) == []
    assert partials_of(TelemetryBatch.empty(Signal.LOGS), settings, NOW) == ([], [])


def test_a_span_without_what_is_required_still_moves_time() -> None:
    """It lacks a key, not a time; so windows close as for everybody else."""
    settings = _settings(by=[{"name": "env", "required": True}], lateness="0s")
    ((_, partial),), _ = partials_of(spans_batch([Span(EPOCH), Span(EPOCH + 30 * SECOND)]), settings, NOW)
    assert partial.sifted.high == EPOCH + 30 * SECOND
    assert len(partial.records) == 0
    assert isinstance(partial.keys[0], pa.Array)
    assert np.asarray(partial.sifted.starts).size == 0
