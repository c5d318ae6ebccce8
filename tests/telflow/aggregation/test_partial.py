"""Partial aggregates: folded, taken apart and sent elsewhere they stand for the same records."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow.accumulator import Accumulator, Measure, Reduce
from telflow.aggregation.partial import Partial
from telflow.errors import BatchError
from telflow.schema import Signal
from telflow.windows import Sifted
from tests.strategies import thorough

MEASURES = {"n": Measure(Reduce.SUM), "most": Measure(Reduce.MAX, "float64")}
_NONE = np.empty(0, np.int64)
_rows = st.lists(
    st.tuples(
        st.sampled_from([0, 10]),
        st.sampled_from([10, 20]),
        st.sampled_from(["a", "b", None]),
        st.sampled_from([1, None]),
        st.integers(-3, 3),
    ),
    min_size=1,
    max_size=12,
)


def _partial(rows: list[tuple[Any, ...]], *, firsts: bool = True) -> Partial:
    starts, ends, names, codes, values = (list(column) for column in zip(*rows, strict=True))
    resource = pa.DictionaryArray.from_arrays(pa.array([0] * len(rows), pa.uint32()), pa.array([b"r"]))
    return Partial(
        Signal.LOGS,
        "acme",
        Sifted(np.array(starts), np.array(ends) if firsts else None, None, _NONE, _NONE, 99, 100),
        [pa.array(names, pa.string()), pa.array(codes, pa.int64()), resource],
        {"n": np.ones(len(rows), np.int64), "most": np.array(values, np.float64)},
        np.ones(len(rows), np.int64),
        MEASURES,
    )


def _content(partial: Partial) -> dict[tuple[Any, ...], tuple[int, int, float]]:
    """Records, sum and maximum by place, whatever the form."""
    found: dict[tuple[Any, ...], tuple[int, int, float]] = {}
    values = partial.values
    sums, most = values["n"], values["most"]
    firsts = partial.sifted.firsts if partial.sifted.firsts is not None else partial.sifted.starts
    for row, keys in enumerate(zip(*(key.to_pylist() for key in partial.keys), strict=True)):
        place = (int(partial.sifted.starts[row]), int(firsts[row]), *keys)
        count, total, highest = found.get(place, (0, 0, float("-inf")))
        found[place] = (
            count + int(partial.records[row]),
            total + int(sums[row]),
            max(highest, float(most[row])),
        )
    return found


@thorough(40)
@given(rows=_rows, firsts=st.booleans())
def test_folding_and_sending_change_nothing(rows: list[tuple[Any, ...]], firsts: bool) -> None:
    """One row for each place and series; the same after a pickle, which both passes of an exchange make alike."""
    partial = _partial(rows, firsts=firsts)
    expected = _content(partial)
    folded = partial.fold()
    assert isinstance(folded.values, Accumulator)
    assert len(folded.records) == len(expected)
    assert _content(folded) == expected
    assert folded.fold() is folded
    payload = pickle.dumps(partial)
    assert pickle.dumps(partial) == payload
    crossed = pickle.loads(payload)  # noqa: S301
    assert _content(crossed) == expected
    assert (crossed.signal, crossed.tenant, crossed.sifted.high, crossed.sifted.now) == (Signal.LOGS, "acme", 99, 100)


@thorough(40)
@given(rows=_rows, chosen=st.lists(st.integers(0, 11), max_size=6, unique=True), fold=st.booleans())
def test_a_part_of_it(rows: list[tuple[Any, ...]], chosen: list[int], fold: bool) -> None:
    """Some rows of either form."""
    partial = _partial(rows).fold() if fold else _partial(rows)
    some = [row for row in chosen if row < len(partial.records)]
    taken = partial.take(np.array(some, np.int64))
    assert taken.records.tolist() == [partial.records[row] for row in some]
    assert taken.sifted.starts.tolist() == [partial.sifted.starts[row] for row in some]
    assert taken.keys[0].to_pylist() == [partial.keys[0][row].as_py() for row in some]
    assert taken.values["n"].tolist() == [partial.values["n"][row] for row in some]


def test_records_of_nobody_cross_too() -> None:
    """An unknown tenant stays unknown, which is not the empty one."""
    partial = _partial([(0, 10, "a", 1, 2)])
    nobody = Partial(
        partial.signal, None, partial.sifted, partial.keys, partial.values, partial.records, partial.measures
    )
    assert pickle.loads(pickle.dumps(nobody)).tenant is None  # noqa: S301


def test_another_version_in_the_cluster_is_refused() -> None:
    """Two releases side by side would misread each other."""
    read, (payload, measures) = _partial([(0, 10, "a", 1, 2)]).__reduce__()
    table = pa.ipc.open_stream(payload).read_next_batch()
    table = table.replace_schema_metadata({**table.schema.metadata, b"format": b"0"})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_batch(table)
    with pytest.raises(BatchError, match="another version of telflow"):
        read(bytes(sink.getvalue()), measures)
