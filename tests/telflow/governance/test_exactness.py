"""is_exact sees everything a view hides, and passes what decoding and IPC make."""

from __future__ import annotations

import io

import pyarrow as pa
import pytest

from telflow.batch import TelemetryBatch
from telflow.codec import decode
from telflow.governance.exactness import is_exact
from telflow.schema import Signal
from tests.canaries import request_with
from tests.oracle import batch_from_message


def _batch(signal: Signal) -> TelemetryBatch:
    return decode(request_with(signal, lambda _r, _c: None, None).SerializeToString(), signal)


@pytest.mark.parametrize("signal", list(Signal))
def test_whole_batches_are_exact(signal: Signal) -> None:
    """However they were made: decoded, built in Python, read from IPC, filtered, taken, concatenated."""
    batch = _batch(signal)
    records = batch.records
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, records.schema) as writer:
        writer.write_batch(records.slice(1))
    (read,) = pa.ipc.open_stream(sink.getvalue())
    made = [
        records,
        batch.resources,
        batch.scopes,
        read,
        batch_from_message(request_with(signal, lambda _r, _c: None, None), signal).records,
        records.filter(pa.array([True, False, True])),
        records.take(pa.array([2, 0])),
        pa.concat_batches([records, records.slice(1, 1)]),
        TelemetryBatch.empty(signal).records,
        pa.record_batch({"nulls": pa.nulls(100, pa.string()), "none": pa.nulls(100, pa.list_(pa.int64()))}),
    ]
    assert [is_exact(table) for table in made] == [True] * len(made)


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize(("offset", "length"), [(0, 2), (1, 2), (2, 1), (0, 0)])
def test_slices_are_not(signal: Signal, offset: int, length: int) -> None:
    """Whichever rows they show."""
    assert not is_exact(_batch(signal).records.slice(offset, length))


def _struct(child: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays([child], names=["a"])


def _list(items: pa.Array, offsets: list[int]) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items)


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["secret", "x"]).slice(1),
        pa.array(["x", "secret"]).slice(0, 1),
        pa.array([4111, 4112]).slice(0, 1),
        pa.array([b"0123456789abcdef"] * 2, pa.binary(16)).slice(0, 1),
        _struct(pa.array(["x", "secret"]).slice(0, 1)),
        _list(pa.array(["x", "secret"]), [0, 1]),
        _list(pa.array(["secret", "x"]), [1, 2]),
        _list(_struct(pa.array(["x", "secret"])), [0, 1]),
        _list(pa.array(["x", "secret"]).slice(0, 1), [0, 1]),
    ],
)
def test_a_view_at_any_depth_is_seen(array: pa.Array) -> None:
    """Offsets that start late or end early, children longer than their parents."""
    assert not is_exact(pa.record_batch({"column": array}))
