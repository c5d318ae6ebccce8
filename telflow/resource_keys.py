"""The attributes of a resource as one value by which series can be told apart, and back.

A *resource key* holds the attributes asked for, ordered by name: two resources have the same key exactly when these
attributes are equal, whatever their order. It is plain data that any process and any later run reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from telflow.dimensions import from_typed, typed
from telflow.globs import glob_mask
from telflow.schema import ANY_VALUE, ATTRIBUTE, ATTRIBUTES, ValueType

__all__ = ["attributes_of_keys", "keys_of_resources", "resource_keys"]

_LAST: dict[tuple[str, ...], tuple[pa.RecordBatch, pa.BinaryArray]] = {}
_EMPTY = pa.scalar(int(ValueType.EMPTY), pa.uint8())
_NOTHING = pa.scalar(b"", pa.binary())
_COLON = pa.scalar(b":", pa.binary())


def resource_keys(attributes: pa.ListArray, names: Sequence[str]) -> pa.BinaryArray:
    r"""Return the key of each resource; never null.

    Of a repeated attribute the first counts; one without a value counts as none.

    Args:
        attributes: Column of `ATTRIBUTES`; a null list counts as an empty one.
        names: Which attributes: names, with `*` and `?`.

    >>> resources = pa.array([[{"key": "b", "type": 1, "str": "x"}, {"key": "a", "type": 3, "int": 1}], []], ATTRIBUTES)
    >>> resource_keys(resources, ["*"]).to_pylist()
    [b'1:a2:\x0311:b2:\x01x', b'']
    >>> resource_keys(resources, ["a"]).to_pylist()
    [b'1:a2:\x031', b'']
    """
    entries = attributes.flatten()
    columns = dict(zip([field.name for field in entries.type], entries.flatten(), strict=True))
    coded = columns["key"].dictionary_encode()
    known = coded.dictionary.to_pylist()  # few, however many resources there are
    rank = np.empty(len(known), np.int64)
    rank[sorted(range(len(known)), key=known.__getitem__)] = np.arange(len(known))
    codes = coded.indices.to_numpy()
    types = pc.fill_null(columns["type"], _EMPTY).to_numpy()
    there = glob_mask(coded.dictionary, names).to_numpy(zero_copy_only=False)[codes] & (types != ValueType.EMPTY)
    rows = pc.list_parent_indices(attributes).to_numpy()
    order = np.lexsort((rank[codes], rows))
    order = order[there[order]]
    row, code = rows[order], codes[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (row[1:] != row[:-1]) | (code[1:] != code[:-1])
    row, code, chosen = row[first], code[first], pa.array(order[first])
    values = typed(
        pa.StructArray.from_arrays([columns[f.name] for f in ANY_VALUE], fields=list(ANY_VALUE)).take(chosen)
    )
    size = pc.binary_length(values).cast(pa.string()).cast(pa.binary())
    sized_names = pa.array([_sized(name.encode()) for name in known], pa.binary()).take(pa.array(code))
    pieces = pc.binary_join_element_wise(sized_names, size, _COLON, values, _NOTHING)
    offsets = np.searchsorted(row, np.arange(len(attributes) + 1)).astype(np.int32)
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), pieces), _NOTHING)


def keys_of_resources(resources: pa.RecordBatch, names: tuple[str, ...]) -> pa.BinaryArray:
    """Return `resource_keys` of a table of resources.

    Those of the last table are kept: several metrics are made of one batch, and parts of it share their resources.
    """
    held, keys = _LAST.get(names, (None, None))
    if held is not resources:
        keys = resource_keys(resources["attributes"], names)
        _LAST[names] = (resources, keys)
    return keys


def attributes_of_keys(keys: pa.BinaryArray) -> pa.ListArray:
    r"""Return the attributes that keys hold, as a column of `ATTRIBUTES`; null is a key without any.

    The work is done once per distinct key.

    >>> attributes_of_keys(pa.array([b"1:a3:\x0317"])).to_pylist()[0][0]["int"]
    17
    """
    coded = keys.fill_null(b"").dictionary_encode()
    entries: list[tuple[str, bytes]] = []
    offsets = [0]
    for key in coded.dictionary.to_pylist():
        entries += _parse(key)
        offsets.append(len(entries))
    values = from_typed(pa.array([value for _, value in entries], pa.binary()))
    names: Any = pa.array([name for name, _ in entries], pa.string())
    structs = pa.StructArray.from_arrays([names, *values.flatten()], fields=list(ATTRIBUTE))
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs, type=ATTRIBUTES)
    return lists.take(coded.indices)


def _sized(value: bytes) -> bytes:
    return b"%d:%s" % (len(value), value)


def _parse(key: bytes) -> list[tuple[str, bytes]]:
    parts = []
    at = 0
    while at < len(key):
        colon = key.index(b":", at)
        end = colon + 1 + int(key[at:colon])
        parts.append(key[colon + 1 : end])
        at = end
    return [(name.decode(), value) for name, value in zip(parts[::2], parts[1::2], strict=True)]
