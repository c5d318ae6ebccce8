"""Addresses, card numbers and IBANs found in any text by the kernel are those the slow reference finds."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from telflow.governance import DETECTORS, DetectorSettings, Redactor, RedactSettings
from tests.redaction_reference import find, replace
from tests.strategies import thorough

_PIECES = [
    *(
        "4111111111111111",
        "4111",
        "1111",
        "378282246310005",
        "3782",
        "822463",
        "10005",
        "501800000009",
        "6304000000000000",
    ),
    *(
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "gb29nwbk60161331926819",
        "NO9386011117947",
        "BE68-5390-0754-7034",
    ),
    *(
        "jane",
        "O'Neil",
        "example",
        "com",
        "org",
        "museum",
        "png",
        "service",
        "xn--p1ai",
        "163",
        "é",
        "ю",
        "☃",
        "1",
        "0",
        "00",
    ),
    *(
        "@",
        "@",
        ".",
        ".",
        "-",
        "-",
        " ",
        " ",
        "_",
        "+",
        "%",
        "'",
        "/",
        ":",
        "%40",
        "%20",
        "%2B",
        "%2e",
        "%3D",
        "%D0",
        "\\n",
    ),
    *("\\u0040", "&#64;", "\\x40", "a", "f", "x", "0x", "deadbeef", "Z", ",", "é", "\0", "<", "=", "\\b"),
]
_REDACTOR = Redactor(
    RedactSettings(
        detectors={n: DetectorSettings(enabled=n in ("email", "payment_card", "iban")) for n in DETECTORS},
        default_keys=False,
    )
)


@given(st.lists(st.sampled_from(_PIECES), max_size=14).map("".join))
@example("x" * 70 + "4111111111111111")
@example("1" * 11 + " 4111111111111111")
@thorough(1500)
def test_finds_what_the_reference_finds(text: str) -> None:
    """Same ranges, same names; and the same text after masking."""
    offsets = [len(text[:i].encode()) for i in range(len(text) + 1)]
    got = [(f.start, f.end, f.detector) for f in _REDACTOR.find(text)]
    assert got == [(offsets[start], offsets[end], name) for start, end, name in find(text)]
    assert _REDACTOR.replace(text) == replace(text)


@given(
    st.integers(0, 70),
    st.integers(0, 70),
    st.sampled_from(["4111111111111111", "4111 1111 1111 1111", "NO9386011117947"]),
)
@thorough(300)
def test_finds_at_every_distance_from_the_borders(before: int, behind: int, number: str) -> None:
    """The kernel looks at one byte in twelve, and at windows of 64: none may fall between."""
    for filler in (" ", "é", "/"):
        text = filler * before + number + filler * behind
        assert (
            _REDACTOR.replace(text) == filler * before + ("[IBAN]" if number[0] == "N" else "[CARD]") + filler * behind
        )
