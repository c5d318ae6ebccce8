"""Resource keys: equal exactly when the attributes asked for are, and back again."""

from __future__ import annotations

import fnmatch
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from telflow import codec
from telflow.resource_keys import attributes_of_keys, keys_of_resources, resource_keys
from telflow.schema import Signal
from tests.batches import key_value
from tests.oracle import any_value
from tests.strategies import thorough

_values = st.sampled_from(["", "a", "1", ":1:a", 1, -1, True, 1.5, b"\x00\xff", ["a", 1], {"k": "v"}, None])
_names = st.sampled_from(["service.name", "service.version", "host", "ж", "1:a"])
_resources = st.lists(st.lists(st.tuples(_names, _values), max_size=4), max_size=5)


def _column(resources: list[list[tuple[str, Any]]]) -> pa.RecordBatch:
    request = ExportTraceServiceRequest()
    for number, attributes in enumerate(resources):
        of_resource = request.resource_spans.add(schema_url=str(number))  # so that equal ones stay apart
        of_resource.resource.attributes.extend(key_value(*item) for item in attributes)
        of_resource.scope_spans.add().spans.add()
    return codec.decode(request.SerializeToString(), Signal.TRACES).resources


def _expected(attributes: list[tuple[str, Any]], globs: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in attributes:
        if value is not None and any(fnmatch.fnmatchcase(name, glob) for glob in globs):
            found.setdefault(name, any_value(key_value("", value).value))
    return found


@thorough(80)
@given(resources=_resources, globs=st.sampled_from([["*"], ["service.*"], ["host", "?:a"], ["none"]]))
def test_there_and_back(resources: list[list[tuple[str, Any]]], globs: list[str]) -> None:
    """Attributes of every kind, in any order, repeated or empty; only those asked for, ordered by name."""
    keys = resource_keys(_column(resources)["attributes"], globs)
    assert keys.null_count == 0
    expected = [_expected(attributes, globs) for attributes in resources]
    read = attributes_of_keys(keys).to_pylist()
    for attributes, wanted in zip(read, expected, strict=True):
        names = [a["key"] for a in attributes]
        assert names == sorted(wanted)
        assert {a.pop("key"): a for a in attributes} == wanted
    for one, mine in zip(keys.to_pylist(), expected, strict=True):
        for other, theirs in zip(keys.to_pylist(), expected, strict=True):
            assert (one == other) == (mine == theirs)
    assert resource_keys(attributes_of_keys(keys), ["*"]).to_pylist() == keys.to_pylist()


def test_a_null_is_a_key_without_attributes() -> None:
    """As of an overflow series."""
    assert attributes_of_keys(pa.array([None, b""], pa.binary())).to_pylist() == [[], []]


def test_keys_of_one_table_are_made_once() -> None:
    """And those of another are its own."""
    first, second = _column([[("host", "a")]]), _column([[("host", "b")]])
    assert keys_of_resources(first, ("*",)) is keys_of_resources(first, ("*",))
    assert keys_of_resources(second, ("*",)).to_pylist() == [b"4:host2:\x01b"]
    assert keys_of_resources(first, ("*",)).to_pylist() == [b"4:host2:\x01a"]
