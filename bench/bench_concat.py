"""Rows: 16 requests of 512 spans joined into one batch, and rows chosen from 8192, against pyarrow and memcpy.

    python -m bench.bench_concat

`concat` also makes one row of equal resources and scopes, which pyarrow's concat does not.
"""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa

from bench import report
from bench.payloads import RECORDS, SMALL, payload
from bench.timing import best_cpu_s
from operators import partition_batch
from telflow import rows
from telflow.batch import TelemetryBatch
from telflow.codec import decode
from telflow.schema import Signal

__all__ = ["main", "measure"]

_ROUNDS = 40


def requests(signal: Signal, senders: int) -> list[TelemetryBatch]:
    """Requests of 512 records, as decoded each by itself, of `senders` processes in turn."""
    whole = decode(payload(signal), signal)
    resource = whole.resources.slice(0, 1)
    parts = []
    for number in range(RECORDS // SMALL):
        records = whole.records.slice(number * SMALL, SMALL)
        first = pa.array(np.zeros(SMALL, np.uint32))
        part = TelemetryBatch(signal, rows.replace_column(records, "resource", first), resource, whole.scopes)
        part = part.with_attributes("resource", {"host.name": f"host-{number % senders}"})
        # Buffers of their own, as the decoder makes them.
        parts.append(pickle.loads(pickle.dumps(part)))  # noqa: S301 - made in this line
    return parts


def measure(signal: Signal, rounds: int = _ROUNDS) -> dict[str, float]:
    """CPU time of each way, the best of `rounds` taken in turn, per million records, and ratios."""
    batch = decode(payload(signal), signal)
    whole = batch.records
    random = np.random.default_rng(7)
    mask = pa.array(random.random(RECORDS) < 0.5)
    order = random.permutation(RECORDS).astype(np.uint32)
    arrow_order = pa.array(order)
    keys = batch.tenants().fill_null("").take(pa.array(np.zeros(RECORDS, np.int64)))
    three = pa.array([f"tenant-{i * 3 // RECORDS}" for i in range(RECORDS)])
    one_sender, many_senders = requests(signal, 1), requests(signal, 16)
    flat = np.zeros(whole.nbytes, np.uint8)

    joined = TelemetryBatch.concat(many_senders)
    assert joined.num_rows == RECORDS
    assert joined.attribute("host.name", level="resource").to_pylist() == [
        f"host-{i}" for i in range(16) for _ in range(SMALL)
    ]
    assert TelemetryBatch.concat(one_sender).resources.num_rows == 1
    assert batch.filter(mask).records.equals(whole.filter(mask))
    assert batch.take(order).records.equals(whole.take(arrow_order))

    cost_s = best_cpu_s(
        {
            "memcpy": flat.copy,
            "pyarrow_concat": lambda: pa.concat_batches([part.records for part in one_sender]),
            "concat_one_sender": lambda: TelemetryBatch.concat(one_sender),
            "concat_16_senders": lambda: TelemetryBatch.concat(many_senders),
            "pyarrow_filter_half": lambda: whole.filter(mask),
            "filter_half": lambda: batch.filter(mask),
            "pyarrow_take_shuffled": lambda: whole.take(arrow_order),
            "take_shuffled": lambda: batch.take(order),
            "partition_one_key": lambda: partition_batch(batch, keys),
            "partition_three_keys": lambda: partition_batch(batch, three),
            "num_bytes": lambda: batch.with_records(whole).num_bytes,
            "construct": lambda: batch.with_records(whole),
        },
        rounds,
    )
    return {
        "bytes": whole.nbytes,
        **{f"{name}_cpu_s_per_million": cost * 1e6 / RECORDS for name, cost in cost_s.items()},
        "concat_one_sender_against_memcpy": cost_s["concat_one_sender"] / cost_s["memcpy"],
        "concat_16_senders_against_memcpy": cost_s["concat_16_senders"] / cost_s["memcpy"],
        "filter_against_pyarrow": cost_s["pyarrow_filter_half"] / cost_s["filter_half"],
        "take_against_pyarrow": cost_s["pyarrow_take_shuffled"] / cost_s["take_shuffled"],
    }


def main() -> None:
    """Measure, print, and write the figures."""
    pa.set_cpu_count(1)
    figures = {str(signal): measure(signal) for signal in Signal}
    for signal, found in figures.items():
        print(signal)
        for name, value in found.items():
            print(f"  {name:44} {value:12.3f}")
    report.write("concat", figures)


if __name__ == "__main__":
    main()
