"""Consistent probability sampling in `trace_state`: the threshold `th` and the randomness `rv`, column by column.

OpenTelemetry specification, "TraceState: Probability Sampling" and "TraceState Handling": of 2**56 equally likely
values of randomness R, a *rejection threshold* T rejects those below it. A span with R >= T is kept, and stands for
2**56 / (2**56 - T) spans, its *adjusted count*. R is `rv` where `trace_state` has it, else the last 56 bits of the
trace id. Both stand in the member `ot` of the W3C trace state: ``ot=th:fd70a;rv:d29d6a7215ced0,vendor=x``.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "NEVER",
    "UNKNOWN",
    "Words",
    "adjusted_counts",
    "raise_thresholds",
    "randomness",
    "read_trace_state",
    "threshold_of",
]

Words: TypeAlias = npt.NDArray[np.uint64]

NEVER = 1 << 56
"""A threshold that rejects all. It is no probability, so it is never written."""

UNKNOWN = (1 << 64) - 1
"""No threshold, or no randomness, in a trace state."""

_DIGITS = 14
_PRECISION = 4
_LOW_56 = np.uint64(NEVER - 1)
_OT = r"(?:^|,)[ \t]*ot=(?P<ot>[^,]*)"
_TH = r"(?:^|;)[ \t]*th:(?P<hex>[0-9a-f]{1,14})[ \t]*(?:;|$)"
_RV = r"(?:^|;)[ \t]*rv:(?P<hex>[0-9a-f]{14})[ \t]*(?:;|$)"
_NIBBLES = np.zeros(256, np.uint64)
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_EMPTY = pa.scalar("", pa.string())
_SHIFTS = np.arange(4 * (_DIGITS - 1), -1, -4).astype(np.uint64)


def threshold_of(probability: float) -> int:
    """Return the rejection threshold of a sampling probability, to four significant hexadecimal digits.

    Leading digits f, of which small probabilities have many, do not count as significant.

    Raises:
        ValueError: `probability` is not between 2**-56 and 1; 0 is no probability.

    >>> f"{threshold_of(0.01):014x}", threshold_of(1), f"{threshold_of(0.5):014x}"
    ('fd70a000000000', 0, '80000000000000')
    """
    if not 2.0**-56 <= probability <= 1:
        raise ValueError(f"expected a probability from 2**-56 to 1, got {probability}")
    exact = NEVER - round(probability * NEVER)
    text = f"{exact:014x}"
    shown = min(_DIGITS, len(text) - len(text.lstrip("f")) + _PRECISION)
    unit = 16 ** (_DIGITS - shown)
    rounded = (exact + unit // 2) // unit * unit
    return rounded if rounded < NEVER else exact


def adjusted_counts(thresholds: Words) -> npt.NDArray[np.float64]:
    """Return how many spans each kept one stands for; NaN where the threshold is `UNKNOWN`.

    >>> adjusted_counts(np.array([0, 1 << 55, UNKNOWN], np.uint64)).tolist()
    [1.0, 2.0, nan]
    """
    counts = np.full(len(thresholds), np.nan)
    known = thresholds < NEVER
    counts[known] = NEVER / (np.uint64(NEVER) - thresholds[known]).astype(np.float64)
    return counts


def read_trace_state(trace_state: pa.StringArray) -> tuple[Words, Words]:
    """Return the thresholds and the explicit randomness of trace states; `UNKNOWN` where there is none.

    What does not have the form the specification asks for counts as none.

    >>> thresholds, explicit = read_trace_state(pa.array(["a=b,ot=th:8;rv:00000000000001", ""]))
    >>> [hex(value) for value in thresholds], explicit[0] == 1
    (['0x80000000000000', '0xffffffffffffffff'], np.True_)
    """
    count = len(trace_state)
    if _is_blank(trace_state):
        return np.full(count, UNKNOWN, np.uint64), np.full(count, UNKNOWN, np.uint64)
    ours = pc.struct_field(pc.extract_regex(trace_state, _OT), "ot")
    return _hexadecimal(ours, _TH), _hexadecimal(ours, _RV)


def randomness(low: Words, explicit: Words) -> Words:
    """Return R: the explicit value where there is one, else the last 56 bits of the trace id.

    Args:
        low: Last eight bytes of each trace id, as they lie in memory.
        explicit: Second result of `read_trace_state`.
    """
    return np.where(explicit == UNKNOWN, low.byteswap() & _LOW_56, explicit)


def raise_thresholds(trace_state: pa.StringArray, low: Words, thresholds: Words) -> pa.StringArray:
    """Return trace states of spans that a sampler has kept.

    Thresholds are only ever raised ("Downstream threshold"). One of 0 changes nothing: where no earlier sampler said
    anything, nothing is claimed. A threshold that the randomness of its own span contradicts is erased ("General
    requirements"), because the span's probability is unknown then.

    Args:
        trace_state: What came in.
        low: Last eight bytes of each trace id, as they lie in memory.
        thresholds: With which each span was kept, below `NEVER`.

    >>> raise_thresholds(pa.array(["", "x=1,ot=th:4"]), np.full(2, UNKNOWN, np.uint64), np.full(2, 1 << 55)).to_pylist()
    ['ot=th:8', 'ot=th:8,x=1']
    """
    thresholds = thresholds.astype(np.uint64)
    if _is_blank(trace_state):
        return trace_state if not thresholds.any() else _spell(thresholds, "ot=th:")
    before, explicit = read_trace_state(trace_state)
    contradicted = (before != UNKNOWN) & (randomness(low, explicit) < before)
    higher = (thresholds > 0) & ((before == UNKNOWN) | (thresholds > before))
    changed = np.flatnonzero(contradicted | higher)
    if not changed.size:
        return trace_state
    some = trace_state.take(pa.array(changed))
    erased = pa.array(contradicted[changed])
    ours = pc.fill_null(pc.struct_field(pc.extract_regex(some, _OT), "ot"), "")
    ours = pc.utf8_trim(pc.replace_substring_regex(ours, r"(?:^|;)[ \t]*th:[^;]*", ""), ";")
    others = pc.utf8_trim(pc.replace_substring_regex(some, r"(?:^|,)[ \t]*ot=[^,]*", ""), ",")
    own = pc.if_else(erased, ours, _joined(_spell(thresholds[changed], "th:"), ours, ";"))
    member = pc.if_else(pc.equal(own, _EMPTY), "", pc.binary_join_element_wise("ot=", own, ""))
    return pc.replace_with_mask(trace_state, _mask(len(trace_state), changed), _joined(member, others, ","))


def _spell(thresholds: Words, prefix: str) -> pa.StringArray:
    """Thresholds as text, each distinct one spelt once."""
    encoded = pa.array(thresholds).dictionary_encode()
    texts = [f"{prefix}{value:014x}".rstrip("0") if value else "" for value in encoded.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(encoded.indices)


def _joined(left: pa.StringArray, right: pa.StringArray, separator: str) -> pa.StringArray:
    both = pc.and_(pc.not_equal(left, _EMPTY), pc.not_equal(right, _EMPTY))
    return pc.binary_join_element_wise(left, right, pc.if_else(both, separator, ""))


def _mask(count: int, rows: npt.NDArray[np.int64]) -> pa.BooleanArray:
    mask = np.zeros(count, bool)
    mask[rows] = True
    return pa.array(mask)


def _is_blank(text: pa.StringArray) -> bool:
    """Tell by the offsets whether all texts are empty."""
    if not len(text):
        return True
    offsets = np.frombuffer(text.buffers()[1], np.int32)[text.offset : text.offset + len(text) + 1]
    return bool(offsets[0] == offsets[-1])


def _hexadecimal(ours: pa.StringArray, pattern: str) -> Words:
    """Return the hexadecimal digits that a pattern finds, padded on the right to 56 bits, as numbers."""
    found = pc.struct_field(pc.extract_regex(ours, pattern), "hex")
    numbers = np.full(len(ours), UNKNOWN, np.uint64)
    present = found.is_valid().to_numpy(zero_copy_only=False)
    if present.any():
        digits = pc.ascii_rpad(found.drop_null(), _DIGITS, "0").cast(pa.binary()).cast(pa.binary(_DIGITS))
        data = np.frombuffer(digits.buffers()[1], np.uint8)[: len(digits) * _DIGITS].reshape(-1, _DIGITS)
        numbers[present] = (_NIBBLES[data] << _SHIFTS).sum(axis=1, dtype=np.uint64)
    return numbers
