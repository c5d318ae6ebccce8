"""OTLP/JSON: text to batch against `orjson.loads` of the same text, batch to text against `orjson.dumps`.

    python -m bench.bench_json

The references do less: `orjson` makes and takes dictionaries, telflow makes and takes Arrow columns.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Mapping

import orjson

from bench import report
from bench.payloads import RECORDS, payload
from telflow.codec import decode, encode
from telflow.schema import Signal

__all__ = ["main", "measure"]

_ROUNDS = 15
_TARGET = 1.0
"""Decoding takes at most as long as `orjson.loads`."""


def measure(signal: Signal, rounds: int = _ROUNDS) -> dict[str, float]:
    """CPU time of each way, the best of `rounds` taken in turn, as seconds per million records and as ratios."""
    batch = decode(payload(signal), signal)
    text = encode(batch, "json")
    by_name = json.dumps(orjson.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    for way in (text, by_name):
        back = decode(way, signal, "json")
        assert back.num_rows == RECORDS
        assert encode(back) == payload(signal)
    tree = orjson.loads(text)
    assert orjson.loads(encode(batch, "json")) == tree
    cost_s = _best(
        {
            "orjson_loads": lambda: orjson.loads(text),
            "decode": lambda: decode(text, signal, "json"),
            "decode_sorted_names": lambda: decode(by_name, signal, "json"),
            "orjson_dumps": lambda: orjson.dumps(tree),
            "encode": lambda: encode(batch, "json"),
        },
        rounds,
    )
    figures = {f"{name}_cpu_s_per_million": cost * 1e6 / RECORDS for name, cost in cost_s.items()}
    return {
        "text_bytes": len(text),
        **figures,
        "decode_records_per_s": RECORDS / cost_s["decode"],
        "decode_mb_per_s": len(text) / cost_s["decode"] / 1e6,
        "decode_against_orjson_loads": cost_s["orjson_loads"] / cost_s["decode"],
        "decode_sorted_names_against_orjson_loads": cost_s["orjson_loads"] / cost_s["decode_sorted_names"],
        "encode_records_per_s": RECORDS / cost_s["encode"],
        "encode_against_orjson_dumps": cost_s["orjson_dumps"] / cost_s["encode"],
    }


def _best(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    best = dict.fromkeys(ways, float("inf"))
    gc.collect()
    gc.disable()  # in favour of the reference: its dictionaries would set the collector off
    try:
        for _ in range(rounds):
            for name, run in ways.items():
                start = time.process_time()
                run()
                best[name] = min(best[name], time.process_time() - start)
    finally:
        gc.enable()
    return best


def main() -> None:
    """Measure all signals, print and write the figures, fail below the target."""
    figures = {str(signal): measure(signal) for signal in Signal}
    for signal, found in figures.items():
        print(
            f"{signal:8} decode {found['decode_against_orjson_loads']:.2f} x orjson.loads"
            f" ({found['decode_cpu_s_per_million']:.2f} CPU-s per million, {found['decode_mb_per_s']:.0f} MB/s),"
            f" names sorted {found['decode_sorted_names_against_orjson_loads']:.2f} x;"
            f" encode {found['encode_against_orjson_dumps']:.2f} x orjson.dumps"
            f" ({found['encode_cpu_s_per_million']:.2f} CPU-s per million)"
        )
    print(report.write("json", figures))
    for signal, found in figures.items():
        assert found["decode_against_orjson_loads"] >= _TARGET, signal


if __name__ == "__main__":
    main()
