"""The protobuf codec against the official library: bytes to batch and back, for each signal.

    python -m bench.bench_codec

The reference does less: `FromString` alone makes objects that nobody has looked at yet, `SerializeToString` alone
starts from such objects. Freed memory is kept, for all of them alike and as in `telflow run`: by itself glibc gives
large blocks back, and which of two ways pays for getting them again depends on the order of everything before; the
official library alone takes a third longer then. Build the native module with `.ci/build-native release` before.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

from bench import report
from bench.payloads import RECORDS, SMALL, payload
from bench.timing import best_cpu_s
from telflow.codec import decode, decode_many, encode, encode_split
from telflow.memory import reuse_large_blocks
from telflow.schema import Signal
from tests.oracle import REQUESTS, batch_from_message, normal_form
from tests.same import assert_same_batch

__all__ = ["main", "measure"]

_ROUNDS = 40
_TARGETS = {Signal.TRACES: 3.0, Signal.LOGS: 3.0, Signal.METRICS: 2.0}
"""Times the speed of the official library, to decode and to encode a large request."""
_SPLIT_BYTES = 1 << 20


def measure(signal: Signal, records: int = RECORDS, rounds: int = _ROUNDS) -> dict[str, float]:
    """CPU time of each way, the best of `rounds` taken in turn, as rates, seconds per million records and ratios."""
    data = payload(signal, records)
    request: Any = REQUESTS[signal].FromString(data)
    batch = decode(data, signal)
    assert_same_batch(decode(payload(signal, SMALL), signal), _reference(signal, SMALL))
    assert batch.num_rows == records
    assert normal_form(REQUESTS[signal].FromString(encode(batch)), signal) == normal_form(request, signal)
    parts = encode_split(batch, _SPLIT_BYTES)
    assert decode_many(parts, signal).num_rows == records
    gc.collect()
    gc.disable()
    try:
        # Pair by pair: what one way leaves in the caches is then only its reference's.
        pairs: list[dict[str, Callable[[], object]]] = [
            {"from_string": lambda: REQUESTS[signal].FromString(data), "decode": lambda: decode(data, signal)},
            {"serialize_to_string": request.SerializeToString, "encode": lambda: encode(batch)},
            {
                "encode_split": lambda: encode_split(batch, _SPLIT_BYTES),
                "decode_many": lambda: decode_many(parts, signal),
            },
        ]
        cost_s = {name: cost for pair in pairs for name, cost in best_cpu_s(pair, rounds).items()}
    finally:
        gc.enable()
    return {
        "payload_bytes": len(data),
        **{f"{name}_records_per_s": records / cost for name, cost in cost_s.items()},
        **{f"{name}_cpu_s_per_million": cost * 1e6 / records for name, cost in cost_s.items()},
        "decode_against_from_string": cost_s["from_string"] / cost_s["decode"],
        "encode_against_serialize_to_string": cost_s["serialize_to_string"] / cost_s["encode"],
    }


def _reference(signal: Signal, records: int) -> Any:
    return batch_from_message(REQUESTS[signal].FromString(payload(signal, records)), signal)


def main() -> int:
    """Measure all signals, print and write the figures; 1 below a target."""
    reuse_large_blocks()
    figures: dict[str, Any] = {}
    missed = 0
    for signal, target in _TARGETS.items():
        for name, records in ((str(signal), RECORDS), (f"{signal}_{SMALL}", SMALL)):
            found = figures[name] = measure(signal, records)
            ratios = found["decode_against_from_string"], found["encode_against_serialize_to_string"]
            print(
                f"{name:12} decode {found['decode_records_per_s'] / 1e6:.2f} M/s ({ratios[0]:.2f}x), "
                f"encode {found['encode_records_per_s'] / 1e6:.2f} M/s ({ratios[1]:.2f}x), target {target}x"
            )
            missed += records == RECORDS and min(ratios) < target
    report.write("codec", figures)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
