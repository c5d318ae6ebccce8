"""The columnar kernel against the slow reference: any batch, with sensitive values planted anywhere."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from operators.redact import RedactSettings, redact_batch
from telflow.codec import encode
from telflow.governance import DETECTORS, DetectorSettings, KeyRule, Redactor
from telflow.schema import Signal
from tests.oracle import REQUESTS, batch_from_message, normal_form
from tests.redaction_reference import redact_message
from tests.strategies import requests, thorough

_TEXTS = [
    *("jane@example.com", "to jane.doe+x@mail.example.org.", "a%40b.example.com", "x@y", "4111 1111 1111 1111"),
    *("5500005555555559", "DE89 3704 0044 0532 0130 00", "gb29nwbk60161331926819", "naïve jörg@münchen.de ☃"),
    *("two: a@b.example, 378282246310005", "4111111111111112", "", "http.route", "user.email"),
]
_BYTES = [b"jane@example.com", b"\xff jane@example.com \xc3", b"4111111111111111", b"ab@c.example", bytes(16), b""]
_INTS = [4111111111111111, -378282246310005, 4111111111111112, 1700000000000000000]
_KEYS = {"user.email": "delete", "a": "mask", "HTTP.route": "keep", "a.a": "delete"}
_REDACTOR = Redactor(
    RedactSettings(
        detectors={n: DetectorSettings(enabled=n in ("email", "payment_card", "iban")) for n in DETECTORS},
        keys=tuple(KeyRule.model_validate({"key": key, "action": action}) for key, action in _KEYS.items()),
        default_keys=False,
    )
)


def _plant(message: Any, chance: random.Random) -> None:
    """Overwrite some texts, bytes and numbers of a message with sensitive or nearly sensitive ones."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                _plant(part, chance)
        elif chance.random() < 0.7:
            continue
        elif field.type == field.TYPE_STRING and field.is_repeated:
            value[:] = [chance.choice(_TEXTS) for _ in value]
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, chance.choice(_TEXTS))
        elif field.type == field.TYPE_BYTES:
            setattr(message, field.name, chance.choice(_BYTES))
        elif field.name == "int_value":
            message.int_value = chance.choice(_INTS)
        elif field.name == "double_value":
            message.double_value = float(chance.choice(_INTS))


@given(st.sampled_from(list(Signal)), st.data(), st.randoms(use_true_random=False))
@thorough(120)
def test_equals_the_reference(signal: Signal, data: st.DataObject, chance: random.Random) -> None:
    """Same findings replaced, everything else as it was, no record lost; nothing left for a second pass."""
    request: Message = data.draw(requests(signal))
    _plant(request, chance)
    batch = batch_from_message(request, signal)
    done = redact_batch(batch, _REDACTOR)
    assert done.quarantined is None
    assert done.kept.num_rows == batch.num_rows
    got: Any = REQUESTS[signal]()
    got.ParseFromString(encode(done.kept))
    expected: Any = REQUESTS[signal]()
    expected.ParseFromString(encode(batch))
    redact_message(expected, _KEYS)
    assert normal_form(got, signal) == normal_form(expected, signal)
    if not done.counts:
        assert done.kept is batch
