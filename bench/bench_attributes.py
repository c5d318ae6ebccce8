"""Attribute columns: `batch.attribute()` against the same through polars expressions.

    python -m bench.bench_attributes

8192 spans of 10 attributes each: every key of theirs, text, numbers and booleans, and one that no span has. polars is
measured in two ways, of which the quicker counts, and twice: from the batch, as it comes to a flow (polars has its own
layout of text, so the column must be converted), and on a frame that was converted before.
"""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from bench import report
from bench.payloads import RECORDS, payload
from bench.timing import best_cpu_s
from telflow.batch import TelemetryBatch
from telflow.codec import decode
from telflow.schema import Signal

__all__ = ["main", "measure"]

_ROUNDS = 25
_TARGET_ROWS_PER_S = 10e6
_TARGET_RATIO = 5.0
_CHILDREN = {pa.string(): "str", pa.int64(): "int", pa.float64(): "double", pa.bool_(): "bool"}


def by_list_eval(frame: pl.DataFrame, key: str, child: str) -> pl.Series:
    """The expression one writes first: filter inside each list."""
    item = pl.element()
    found = item.filter(item.struct.field("key") == key).struct.field(child)
    return frame.select(pl.col("attributes").list.eval(found).list.first()).to_series()


def by_explode(frame: pl.DataFrame, key: str, child: str) -> pl.Series:
    """The quick one: one long column, filtered, and joined back to the rows."""
    long = frame.select(pl.int_range(pl.len()).alias("row"), "attributes").explode("attributes", empty_as_null=True)
    items = long.select("row", pl.col("attributes").struct.field("key"), pl.col("attributes").struct.field(child))
    found = items.filter(pl.col("key") == key).unique("row", keep="first", maintain_order=True)
    rows = pl.DataFrame({"row": pl.int_range(frame.height, eager=True)})
    return rows.join(found, on="row", how="left", maintain_order="left").get_column(child)


def converted(batch: TelemetryBatch) -> pl.DataFrame:
    """The one column the expressions need."""
    frame = pl.from_arrow(batch.records.select(["attributes"]))
    assert isinstance(frame, pl.DataFrame)
    return frame


def measure(batch: TelemetryBatch, key: str, data_type: pa.DataType, rounds: int = _ROUNDS) -> dict[str, float]:
    """CPU time of each way, the best of `rounds` taken in turn."""
    child, frame = _CHILDREN[data_type], batch.to_polars()
    found = batch.attribute(key, type=data_type)
    for reference in (by_list_eval, by_explode):
        assert found.to_pylist() == reference(frame, key, child).to_list(), (key, reference.__name__)
    cost_s = best_cpu_s(
        {
            "attribute": lambda: batch.attribute(key, type=data_type),
            "attribute_inferred": lambda: batch.attribute(key),
            "polars_list_eval": lambda: by_list_eval(frame, key, child),
            "polars_explode": lambda: by_explode(frame, key, child),
            "polars_list_eval_from_batch": lambda: by_list_eval(converted(batch), key, child),
            "polars_explode_from_batch": lambda: by_explode(converted(batch), key, child),
        },
        rounds,
    )
    quickest = min(cost_s["polars_list_eval"], cost_s["polars_explode"])
    from_batch = min(cost_s["polars_list_eval_from_batch"], cost_s["polars_explode_from_batch"])
    return {
        "present_share": 1 - found.null_count / len(found),
        "rows_per_s": RECORDS / cost_s["attribute"],
        "against_polars": from_batch / cost_s["attribute"],
        "against_polars_converted_before": quickest / cost_s["attribute"],
        **{f"{name}_cpu_s_per_million": cost * 1e6 / RECORDS for name, cost in cost_s.items()},
    }


def main() -> None:
    """Measure, print, and write the figures."""
    batch = decode(payload(Signal.TRACES), Signal.TRACES)
    kinds = {1: pa.string(), 2: pa.bool_(), 3: pa.int64(), 4: pa.float64()}
    first = batch.attributes().slice(0, 64).to_pylist()
    keys = {item["key"]: kinds[item["type"]] for row in first for item in row if item["type"] in kinds}
    figures = {key: measure(batch, key, data_type) for key, data_type in [*keys.items(), ("not.there", pa.string())]}
    for key, found in figures.items():
        print(
            f"{key:32} in {found['present_share']:4.0%} of rows: {found['rows_per_s'] / 1e6:6.1f} M rows/s, "
            f"{found['against_polars']:5.1f} x polars, {found['against_polars_converted_before']:.1f} x once converted"
        )
    slowest = min(found["rows_per_s"] for found in figures.values())
    ratio = min(found["against_polars"] for found in figures.values())
    print(f"slowest {slowest / 1e6:.1f} M rows/s (target {_TARGET_ROWS_PER_S / 1e6:.0f}), ", end="")
    print(f"least {ratio:.1f} x polars (target {_TARGET_RATIO:.0f})")
    report.write("attributes", {"slowest_rows_per_s": slowest, "least_against_polars": ratio, "keys": figures})


if __name__ == "__main__":
    main()
