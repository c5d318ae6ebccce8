"""Fuzz the codec against the official library: mutate real messages for a while and compare every reading.

``python -m tests.fuzz_codec 60`` runs for a minute and ends with 1 when a reading differs, having said which bytes.
``python -m tests.fuzz_codec --corpus native/fuzz/corpus`` writes seeds for the Rust fuzzers instead.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from bench import payloads
from telflow.codec import decode, encode
from telflow.schema import Signal
from tests.differential import check_same_reading
from tests.strategies import requests

_SIGNALS = [Signal.TRACES, Signal.METRICS, Signal.LOGS]  # in the order of native/src/fuzzing.rs
_TELLING = [0, 1, 2, 3, 4, 5, 0x0A, 0x0B, 0x0C, 0x12, 0x1A, 0x7F, 0x80, 0xFF]
_UNKNOWN = [0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5]
_LARGEST_SEED = 4000
_CUT = 0.2


def seeds(signal: Signal, count: int = 200) -> list[bytes]:
    """Small real messages of a signal, the same every time: from the benchmarks and from the strategies."""
    found = [payloads.payload(signal, records) for records in (1, 2, 5)]

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests(signal))
    def collect(request: Any) -> None:
        found.append(request.SerializeToString())

    collect()
    return found


def mutate(random_: random.Random, payload: bytes) -> bytes:
    """`payload` after one to five changes of the kinds that parsers stumble over."""
    data = payload
    for _ in range(random_.choice([1, 1, 1, 2, 3, 5])):
        at = random_.randrange(len(data) + 1)
        head, here, tail = data[:at], data[at : at + 1], data[at + 1 :]
        data = random_.choice(_CHANGES)(random_, data, head, here, tail)
    return data


def _repeat(random_: random.Random, data: bytes, head: bytes, here: bytes, tail: bytes) -> bytes:
    """A piece of the message once more, somewhere else."""
    begin = random_.randrange(len(data) + 1)
    return head + data[begin : begin + random_.randrange(1, 60)] + here + tail


_CHANGES: list[Callable[[random.Random, bytes, bytes, bytes, bytes], bytes]] = [
    _repeat,
    lambda r, _, head, __, tail: head + r.randbytes(1) + tail,
    lambda r, _, head, here, tail: head + r.randbytes(r.randrange(1, 12)) + here + tail,
    lambda r, _, head, __, tail: head + tail[r.randrange(11) :],
    lambda r, data, head, _, __: head if r.random() < _CUT else data,
    lambda r, _, head, here, tail: head + here + tail[: r.randrange(44)] + here + tail,
    lambda r, _, head, here, tail: head + bytes(b ^ 1 << r.randrange(8) for b in here) + tail,
    lambda r, _, head, __, tail: head + bytes([r.choice(_TELLING)]) + tail,
    lambda r, _, head, here, tail: head + bytes([r.choice(_UNKNOWN), 1]) + here + tail,
    lambda r, _, head, here, tail: head + bytes([r.choice(_TELLING) | 0x80] * r.randrange(11)) + here + tail,
]


def differences(seconds: float, seed: int) -> Iterator[tuple[Signal, bytes, str] | Counter[tuple[Signal, bool]]]:
    """Every input that is read differently, and at last how many were refused and accepted."""
    random_ = random.Random(seed)
    corpus = {signal: seeds(signal) for signal in _SIGNALS}
    counts: Counter[tuple[Signal, bool]] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        signal = random_.choice(_SIGNALS)
        data = mutate(random_, random_.choice(corpus[signal]))
        try:
            accepted = check_same_reading(signal, data)
        except AssertionError as difference:
            yield signal, data, str(difference)
            continue
        counts[signal, accepted] += 1
        # What was accepted after a change is a seed for the next one.
        if accepted and len(data) < _LARGEST_SEED and random_.random() < 0.05:
            corpus[signal].append(data)
    yield counts


def write_corpus(folder: Path) -> int:
    """Seeds for native/fuzz: a byte that chooses the signal, then a message or its JSON text."""
    written = 0
    for choice, signal in enumerate(_SIGNALS):
        for payload in seeds(signal, 300):
            text = encode(decode(payload, signal), "json")
            for target, content in (("protobuf", payload), ("json", text)):
                data = bytes([choice]) + content
                path = folder / target / hashlib.sha256(data).hexdigest()[:16]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                written += 1
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=60.0)
    parser.add_argument("--seed", type=int, default=None, help="default: another one every time")
    parser.add_argument("--corpus", type=Path, help="only write seeds for the Rust fuzzers to this folder")
    options = parser.parse_args()
    if options.corpus:
        sys.stdout.write(f"{write_corpus(options.corpus)} seeds in {options.corpus}\n")
        return 0
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    failed = False
    for found in differences(options.seconds, seed):
        if isinstance(found, Counter):
            counts = ", ".join(f"{s} {n} {'read' if ok else 'refused'}" for (s, ok), n in sorted(found.items()))
            sys.stdout.write(f"{found.total()} inputs (seed {seed}): {counts}\n")
        else:
            failed = True
            sys.stdout.write(f"{found[0]}: {found[2]}\n  payload {found[1].hex()}\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
