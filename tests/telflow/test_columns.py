"""Tables built column by column: defaults are OTLP's, mistakes are told."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from telflow.batch import TelemetryBatch
from telflow.columns import any_values, attribute_lists, fill_record_batch, fixed_lists
from telflow.errors import BatchError
from telflow.schema import ATTRIBUTES, RECORD_SCHEMAS, RESOURCES, SCOPES, Signal
from tests.oracle import attributes


@pytest.mark.parametrize("signal", list(Signal))
def test_a_table_of_defaults_is_a_valid_batch(signal: Signal) -> None:
    """Every column of every signal has its default."""
    resources, scopes = fill_record_batch(RESOURCES, 1, {}), fill_record_batch(SCOPES, 1, {})
    batch = TelemetryBatch(signal, fill_record_batch(RECORD_SCHEMAS[signal], 3, {}), resources, scopes)
    batch.records.validate(full=True)
    assert all(column.null_count in {0, 3} for column in batch.records)


@pytest.mark.parametrize("signal", list(Signal))
def test_a_table_of_defaults_can_be_written_as_parquet(signal: Signal) -> None:
    """Below a null struct stand defaults: Parquet takes no null where the schema admits none."""
    table = pa.Table.from_batches([fill_record_batch(RECORD_SCHEMAS[signal], 3, {})])
    pq.write_table(table, pa.BufferOutputStream())


def test_unknown_columns_are_refused() -> None:
    """A misspelt column is an error, not a column lost."""
    with pytest.raises(BatchError, match="no column nmae among name, version"):
        fill_record_batch(SCOPES, 1, {"nmae": "x"})


def test_attributes_are_laid_out_row_by_row() -> None:
    """Each list holds the values its row has, in the order of the keys; null leaves one out."""
    lists = attribute_lists(
        3,
        [
            ("s", pa.array(["a", None, "c"])),
            ("b", pa.array([True, None, False])),
            ("i", pa.array([None, None, 7], pa.int64())),
            ("d", pa.array([0.5, None, None])),
        ],
    )
    lists.validate(full=True)
    assert lists.type == ATTRIBUTES
    assert [[a["key"] for a in row] for row in lists.to_pylist()] == [["s", "b", "d"], [], ["s", "b", "i"]]
    assert lists.to_pylist()[2][2]["int"] == 7


def test_no_attributes_at_all() -> None:
    """Without keys each row has an empty list."""
    assert attribute_lists(2, []).to_pylist() == [attributes([]), []]


def test_other_types_are_no_attribute_values() -> None:
    """A type that OTLP has no value kind for is refused."""
    with pytest.raises(BatchError, match="got int32"):
        any_values(pa.array([1], pa.int32()))


def test_rows_of_an_array_as_lists() -> None:
    """No rows give no lists."""
    assert fixed_lists(np.zeros((0, 4)), pa.list_(pa.float64())).to_pylist() == []
