"""Redaction: rate on text and cost per record, against Python's `re` per value and Arrow's own regex replacement.

Three texts of about 9 MB: *distinct* (URLs, SQL, messages, ids, no two values alike), *repeated* (200 different
values), *sensitive* (distinct, one value in ten holds an address or a card number). The references look for addresses
alone, with the usual simple pattern; the kernel looks for everything its default detectors know. Times are CPU seconds
of the process, the best of several rounds: this says more than wall time on a shared machine.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bench import payloads, report
from operators.redact import redact_batch
from telflow.batch import TelemetryBatch
from telflow.codec import decode
from telflow.columns import attribute_lists, fill_record_batch
from telflow.governance import DETECTORS, DetectorSettings, Redactor, RedactSettings
from telflow.schema import RECORD_SCHEMAS, RESOURCES, SCOPES, Signal

ROWS = 8192
PER_RECORD = 12
SIMPLE = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}"
ROUNDS = 12


def distinct(count: int, seed: int = 7, sensitive: float = 0.0) -> list[str]:
    """Seeded telemetry text, no two values alike."""
    chance = random.Random(seed)
    words = ["cart", "order", "user", "payment", "retry", "timeout", "cache", "session", "product", "price", "queue"]

    def word() -> str:
        return chance.choice(words)

    makers: list[Callable[[], str]] = [
        lambda: (
            f"https://shop.example/{word()}/{chance.randrange(10**6)}?{word()}={chance.randrange(10**5)}&{word()}=on"
        ),
        lambda: (
            f"SELECT id, {word()} FROM {word()}s WHERE {word()}_id = {chance.randrange(10**7)} LIMIT 50"  # noqa: S608 - text only
        ),
        lambda: (
            f"{word()} {chance.randrange(10**6)} {word()} after {chance.randrange(5000)} ms, {word()} {word()} left"
        ),
        lambda: f"{chance.getrandbits(128):032x}",
        lambda: f"2026-11-{chance.randrange(10, 29)}T{chance.randrange(10, 23)}:40:03.{chance.randrange(10**9):09d}Z",
        lambda: f"com.example.{word()}.{word().title()}Service.{word()}({chance.randrange(10**6)})",
        lambda: f"Mozilla/5.0 (X11; Linux x86_64) {word()}/{chance.randrange(10**5)}.{chance.randrange(99)}",
        lambda: f"/{word()}/{chance.randrange(10**6)}/{word()}/{chance.getrandbits(64):016x}",
    ]
    secrets: list[Callable[[], str]] = [
        lambda: f"mail for {word()}{chance.randrange(10**6)}@example.com failed",
        lambda: f"card 4111 1111 1111 1111 of {word()} {chance.randrange(10**6)}",
    ]
    return [chance.choice(secrets if chance.random() < sensitive else makers)() for _ in range(count)]


def batch_of(values: list[str]) -> TelemetryBatch:
    """Spans with `PER_RECORD` text attributes each."""
    columns = [(f"attribute.{i}", pa.array(values[i::PER_RECORD])) for i in range(PER_RECORD)]
    rows = len(values) // PER_RECORD
    records = fill_record_batch(RECORD_SCHEMAS[Signal.TRACES], rows, {"attributes": attribute_lists(rows, columns)})
    resources = fill_record_batch(RESOURCES, 1, {"tenant": "acme"})
    return TelemetryBatch(Signal.TRACES, records, resources, fill_record_batch(SCOPES, 1, {"name": "bench"}))


def best_s(run: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Least CPU seconds of several runs."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def text_figures(name: str, values: list[str], hits: bool) -> dict[str, float]:
    """Assert what each finds, then MB of values per second: kernel, `re` per value, Arrow over the same child."""
    batch = batch_of(values)
    child = batch.records["attributes"].values.field("str")
    size = sum(len(v.encode()) for v in values)
    redactor = Redactor(RedactSettings())
    only = Redactor(
        RedactSettings(detectors={n: DetectorSettings(enabled=n == "email") for n in DETECTORS}, default_keys=False)
    )
    simple = re.compile(SIMPLE)
    mails = sum(bool(simple.search(v)) for v in values)
    done = redact_batch(batch, redactor)
    assert (done.kept is batch) == (not hits)
    assert done.counts.get(("email", "record.attributes.value"), 0) == mails
    clean = redact_batch(batch, only).kept.records["attributes"].values.field("str")
    assert clean.equals(pc.replace_substring_regex(child, SIMPLE, "[EMAIL]"))
    texts = child.to_pylist()
    assert clean.to_pylist() == [simple.sub("[EMAIL]", v) for v in texts]
    took = {
        "kernel_all_detectors": best_s(lambda: redact_batch(batch, redactor)),
        "kernel_email_only": best_s(lambda: redact_batch(batch, only)),
        "python_re_email_only": best_s(lambda: [simple.sub("[EMAIL]", v) for v in texts], 3),
        "arrow_regex_email_only": best_s(lambda: pc.replace_substring_regex(child, SIMPLE, "[EMAIL]"), 3),
    }
    figures = {f"{name}_{who}_mb_per_s": round(size / 1e6 / s, 1) for who, s in took.items()}
    figures[f"{name}_times_python_re"] = round(took["python_re_email_only"] / took["kernel_all_detectors"], 1)
    figures[f"{name}_times_arrow_regex"] = round(took["arrow_regex_email_only"] / took["kernel_all_detectors"], 1)
    return figures


def record_figures(signal: Signal) -> dict[str, float]:
    """Cost per record of the shared payload, in which the default detectors find nothing."""
    batch = decode(payloads.payload(signal, ROWS), signal)
    redactor = Redactor(RedactSettings())
    assert redact_batch(batch, redactor).kept is batch
    took = best_s(lambda: redact_batch(batch, redactor), 25)
    everything = Redactor(RedactSettings(detectors={"ipv4": DetectorSettings()}))
    found = redact_batch(batch, everything)
    figures = {f"{signal}_us_per_record": round(took / batch.num_rows * 1e6, 3)}
    if found.counts:
        assert sum(found.counts.values()) == batch.num_rows
        hit = best_s(lambda: redact_batch(batch, everything), 25)
        figures[f"{signal}_one_finding_each_us_per_record"] = round(hit / batch.num_rows * 1e6, 3)
    return figures


def main() -> None:
    """Print the figures and write them to bench/results/."""
    count = ROWS * PER_RECORD * 2
    few = distinct(200)
    chance = random.Random(3)
    figures = {
        **text_figures("distinct", distinct(count), hits=False),
        **text_figures("repeated", [chance.choice(few) for _ in range(count)], hits=False),
        **text_figures("sensitive", distinct(count, sensitive=0.1), hits=True),
    }
    for signal in Signal:
        figures |= record_figures(signal)
    for name, figure in figures.items():
        print(f"{name:44} {figure:10.3f}")
    print(report.write("redact", figures))


if __name__ == "__main__":
    main()
