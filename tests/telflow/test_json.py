"""native/src/json: OTLP/JSON <-> protobuf, rule by rule and against the official library (tests/otlp_json.py)."""

from __future__ import annotations

import base64
import json
import math
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow import _native
from telflow.errors import DecodeError
from telflow.schema import Signal
from tests.oracle import REQUESTS, canonical
from tests.otlp_json import Refused, meaning, parse, to_dict
from tests.strategies import mutations, requests, thorough
from tests.wire import delimited, soup

SIGNALS = pytest.mark.parametrize("signal", list(Signal))


def read(signal: Signal, text: bytes) -> bytes:
    """Canonical bytes of what the native transcoder makes of a text."""
    payload, _ = _native.json_to_protobuf(signal, text)
    return canonical(REQUESTS[signal].FromString(payload))


def in_span(member: str) -> bytes:
    """A trace request of one span with one member."""
    return b'{"resourceSpans":[{"scopeSpans":[{"spans":[{' + member.encode() + b"}]}]}]}"


def span(member: str) -> Any:
    request: Any = REQUESTS[Signal.TRACES]()
    request.ParseFromString(read(Signal.TRACES, in_span(member)))
    return request.resource_spans[0].scope_spans[0].spans[0]


def attribute(value: str) -> Any:
    """The AnyValue that a JSON text of one is read as."""
    return span('"attributes":[{"key":"k","value":' + value + "}]").attributes[0].value


def point(member: str) -> Any:
    """A number data point with one member."""
    text = '{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"gauge":{"dataPoints":[{' + member + "}]}}]}]}]}"
    request: Any = REQUESTS[Signal.METRICS]()
    request.ParseFromString(read(Signal.METRICS, text.encode()))
    return request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0]


# --- against the official library ---------------------------------------------------------------


@SIGNALS
@thorough(15)
@given(data=st.data())
def test_any_request_is_written_as_officially(signal: Signal, data: st.DataObject) -> None:
    """Our text holds exactly the members and values of the official one, and the official parser reads it back."""
    request = data.draw(requests(signal))
    text = _native.protobuf_to_json(signal, request.SerializeToString())
    assert json.loads(text) == to_dict(request)
    assert canonical(parse(signal, text)) == meaning(request)


@SIGNALS
@thorough(15)
@given(data=st.data())
def test_any_official_text_is_read(signal: Signal, data: st.DataObject) -> None:
    """The official text of any request is read as that request, with nothing unknown in it."""
    request = data.draw(requests(signal))
    payload, unknown = _native.json_to_protobuf(signal, json.dumps(to_dict(request)).encode())
    assert canonical(REQUESTS[signal].FromString(payload)) == meaning(request)
    assert unknown == 0


@SIGNALS
@thorough(15)
@given(data=st.data())
def test_any_other_spelling_is_read_alike(signal: Signal, data: st.DataObject) -> None:
    """Order of names, white space, escapes, case of hexadecimal, numbers for strings, unknown names: no matter."""
    request = data.draw(requests(signal))
    text, unknown = _Spelling(data.draw(st.integers(0, 2**32))).of(to_dict(request))
    payload, counted = _native.json_to_protobuf(signal, text.encode())
    assert canonical(REQUESTS[signal].FromString(payload)) == meaning(request)
    assert counted == unknown
    assert canonical(parse(signal, text.encode())) == meaning(request)


@SIGNALS
@thorough(25)
@given(data=st.data())
def test_mutated_text_is_refused_or_read_alike(signal: Signal, data: st.DataObject) -> None:
    """No text brings the parser down; what the reference refuses is refused, what it accepts means the same."""
    text = data.draw(mutations(_native.protobuf_to_json(signal, data.draw(requests(signal)).SerializeToString())))
    try:
        expected = canonical(parse(signal, text))
    except Refused:
        with pytest.raises(DecodeError):
            _native.json_to_protobuf(signal, text)
    else:
        assert read(signal, text) == expected


@SIGNALS
@thorough(25)
@given(data=st.data())
def test_irregular_protobuf_is_written_as_what_it_means(signal: Signal, data: st.DataObject) -> None:
    """Split, repeated and disordered fields give the text of the merged request; refused bytes give none."""
    payload = data.draw(soup(REQUESTS[signal].DESCRIPTOR))
    try:
        request = REQUESTS[signal].FromString(payload)
    except Exception:  # noqa: BLE001 (the official error has no class of its own)
        with pytest.raises(DecodeError):
            _native.protobuf_to_json(signal, payload)
    else:
        assert json.loads(_native.protobuf_to_json(signal, payload)) == to_dict(request)


class _Spelling:
    """Writes a JSON object in one of the many ways that mean the same."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.unknown = 0

    def of(self, content: dict[str, Any]) -> tuple[str, int]:
        return self.space() + self.object(content) + self.space(), self.unknown

    def space(self) -> str:
        return self.random.choice(["", "", "", " ", "\n\t", "\r\n  "])

    def object(self, content: dict[str, Any]) -> str:
        members = [(self.string(name), self.value(name, value)) for name, value in content.items()]
        if self.random.random() < 0.2:
            members.append((self.string("trace_id"), '{"a":[1,{"a":null,"b":"\\u00e4"}],"c":-1.5e3,"d":[]}'))
            self.unknown += 1
        if self.random.random() < 0.1:
            members.append((self.string("schemaURL"), "[]"))
            self.unknown += 1
        self.random.shuffle(members)
        gap = self.space
        return "{" + gap() + ",".join(f"{gap()}{n}{gap()}:{gap()}{v}{gap()}" for n, v in members) + "}"

    def value(self, name: str, value: Any) -> str:
        if isinstance(value, dict):
            return self.object(value)
        if isinstance(value, list):
            return "[" + ",".join(self.space() + self.value(name, v) + self.space() for v in value) + "]"
        if isinstance(value, str):
            return self.text(name, value)
        if isinstance(value, float) and self.random.random() < 0.3:
            return f'"{value!r}"'
        return json.dumps(value)

    def text(self, name: str, value: str) -> str:
        flip = self.random.random() < 0.5
        if re.search("[tT]raceId|[sS]panId", name):
            return self.string("".join(self.random.choice([c.lower(), c.upper()]) for c in value))
        if name == "bytesValue" and flip:
            return self.string(base64.urlsafe_b64encode(base64.b64decode(value)).decode().rstrip("="))
        number = name in {"intValue", "asInt", "count", "zeroCount", "bucketCounts"} or name.endswith("UnixNano")
        if number and flip:
            exact = self.random.random() < 0.3 and int(float(value)) == int(value)
            return json.dumps(float(value)) if exact and abs(int(value)) < 2**63 else value
        return self.string(value)

    def string(self, text: str) -> str:
        kind = self.random.randrange(4)
        if kind == 0:
            return json.dumps(text)
        if kind == 1 and text:
            units = text.encode("utf-16-be")
            return '"' + "".join(f"\\u{units[i]:02x}{units[i + 1]:02X}" for i in range(0, len(units), 2)) + '"'
        return json.dumps(text, ensure_ascii=False)


# --- rule by rule --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"7"', 7),
        ("7", 7),
        ("-7.0", -7),
        ("1e3", 1000),
        ('"1e3"', 1000),
        ('"-0"', 0),
        ("9223372036854775807", 2**63 - 1),
        ('"-9223372036854775808"', -(2**63)),
        ("9007199254740993", 2**53 + 1),
        ("9.007199254740993e15", 2**53),  # with an exponent it is a double first, as officially
    ],
)
def test_integer_spellings(value: str, expected: int) -> None:
    """64-bit integers are decimal strings or numbers, whole doubles included."""
    assert attribute(f'{{"intValue":{value}}}').int_value == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1", 1.0),
        ('"1.5"', 1.5),
        ("-0.0", -0.0),
        ("5e-324", 5e-324),
        ('"Infinity"', math.inf),
        ('"-Infinity"', -math.inf),
    ],
)
def test_double_spellings(value: str, expected: float) -> None:
    """Doubles are numbers, numbers in strings, or the three words."""
    found = attribute(f'{{"doubleValue":{value}}}').double_value
    assert (found, math.copysign(1, found)) == (expected, math.copysign(1, expected))


def test_not_a_number() -> None:
    """The word NaN in quotes is read as one."""
    assert math.isnan(attribute('{"doubleValue":"NaN"}').double_value)


@pytest.mark.parametrize("value", ["+/8=", "-_8=", "+/8", "-_8", "-/8"])
def test_base64_spellings(value: str) -> None:
    """Bytes are base64 in either alphabet, padded or not."""
    assert attribute(f'{{"bytesValue":"{value}"}}').bytes_value == b"\xfb\xff"


def test_identifiers_are_hexadecimal_of_either_case_and_any_length() -> None:
    """Hexadecimal without regard to case; a length OTLP calls invalid is kept, for the batch to hold as irregular."""
    assert span('"traceId":"00aBcDeFfF"').trace_id == b"\x00\xab\xcd\xef\xff"
    assert span('"spanId":""').span_id == b""
    assert point('"exemplars":[{"spanId":"0A"}]').exemplars[0].span_id == b"\n"
    assert span('"links":[{"traceId":"0a"}]').links[0].trace_id == b"\n"


def test_unnamed_enum_number_is_kept() -> None:
    """Enums are open in proto3: a number without a name survives."""
    assert span('"kind":-7').kind == -7
    assert span('"kind":2.0').kind == 2


def test_null_is_absent() -> None:
    """Null leaves a field unset: a message, a list, and a member of a oneof that another member then sets."""
    found = span('"status":null,"attributes":null,"name":null,"traceId":null')
    assert found.ListFields() == []
    assert attribute('{"stringValue":null,"intValue":"1"}').WhichOneof("value") == "int_value"
    assert attribute('{"intValue":"1","stringValue":null}').WhichOneof("value") == "int_value"


def test_presence_is_kept() -> None:
    """Default values of fields with presence, and empty messages, are set; those without presence vanish."""
    assert attribute('{"stringValue":""}').WhichOneof("value") == "string_value"
    assert attribute("{}").WhichOneof("value") is None
    assert span('"status":{}').HasField("status")
    assert point('"asInt":0').WhichOneof("value") == "as_int"
    payload, _ = _native.json_to_protobuf(
        Signal.TRACES, in_span('"name":"","kind":0,"startTimeUnixNano":"0","events":[]')
    )
    assert payload == b"\x0a\x04\x12\x02\x12\x00"


def test_long_content_gets_its_length_right() -> None:
    """Lengths that outgrow the room left for them, and shrink again, are written in as few bytes as they take."""
    sizes = [0, 100, 130, 20_000, 5, 3_000_000, 200, 1]
    attributes = [{"key": "k", "value": {"stringValue": "x" * size}} for size in sizes]
    text = in_span('"attributes":' + json.dumps(attributes))
    payload, _ = _native.json_to_protobuf(Signal.TRACES, text)
    assert payload == canonical(parse(Signal.TRACES, text))


def test_unknown_names_are_ignored_and_counted() -> None:
    """A name in snake_case or another case, or a field of the future, is skipped with all it holds and counted once."""
    text = in_span(
        '"trace_id":"zz","TraceId":1,"future":{"a":[{"b":true},null,false,-1.5e-3,"\\ud834\\udd1e"]},"name":"n"'
    )
    payload, unknown = _native.json_to_protobuf(Signal.TRACES, text)
    assert (payload, unknown) == (canonical(parse(Signal.TRACES, text)), 3)


def test_white_space_is_that_of_json() -> None:
    """The four white-space characters may stand between tokens and around the text."""
    text = b' \t\r\n{ \t\r\n"resourceSpans" \t\r\n: \t\r\n[ \t\r\n] \t\r\n} \t\r\n'
    assert _native.json_to_protobuf(Signal.TRACES, text) == (b"", 0)


_SPAN = "resourceSpans[0].scopeSpans[0].spans[0]"
_VALUE = f"{_SPAN}.attributes[0].value"
_BEFORE = len('{"resourceSpans":[{"scopeSpans":[{"spans":[{')
_BEFORE_VALUE = _BEFORE + len('"attributes":[{"value":')


def _of_value(value: str) -> bytes:
    return in_span('"attributes":[{"value":' + value + "}]")


@pytest.mark.parametrize(
    ("text", "reason", "offset", "path"),
    [
        (b"", "expected an object, got the end of the text", 0, ""),
        (b"[]", "expected an object, got an array", 0, ""),
        (b"null", "expected an object, got null", 0, ""),
        (b"\xef\xbb\xbf{}", "expected an object, got byte 0xef", 0, ""),
        (b"{} {}", "expected the end of the text, got an object", 3, ""),
        (b"{}\0", "expected the end of the text, got byte 0x00", 2, ""),
        (b"{", "expected a name in quotes, got the end of the text", 1, ""),
        (b"{a:1}", "expected a name in quotes, got 'a'", 1, ""),
        (b'{"a":1,}', "expected a name in quotes, got '}'", 7, ""),
        (b'{"a" 1}', "expected ':', got a number", 5, ""),
        (b'{"a":1 "b":2}', "expected ',' or '}', got a string", 7, ""),
        (b'{"a":NaN}', "expected a value, got 'N'", 5, "a"),
        (b'{"a":[1,]}', "expected a value, got ']'", 8, "a"),
        (b'{"a":nul}', "expected null", 8, "a"),
        (b'{"a":{"b":1,"b":2}}', 'duplicate name "b"', 12, "a"),
        (b'{"a":1,"a":2}', 'duplicate name "a"', 7, ""),
        (b'{"a":' + b"[" * 101, "nested deeper than 100 levels", 105, "a"),
        (b'{"a":"\\ud834"}', "unpaired surrogate", 6, "a"),
        (b'{"resourceSpans":{}}', "expected an array, got an object", 17, "resourceSpans"),
        (b'{"resourceSpans":[{},null]}', "expected an element, got null", 21, "resourceSpans[1]"),
        (
            b'{"resourceSpans":[{},{"resource":[]}]}',
            "expected an object, got an array",
            33,
            "resourceSpans[1].resource",
        ),
        (b'{"resourceSpans":[{}', "expected ',' or ']', got the end of the text", 20, "resourceSpans[0]"),
        (in_span('"name":"a","name":"b"'), 'duplicate name "name"', _BEFORE + 11, _SPAN),
        (in_span('"name":7'), "expected a string, got a number", _BEFORE + 7, f"{_SPAN}.name"),
        (in_span('"name":"\x01"'), "control character 0x01 in a string", _BEFORE + 8, f"{_SPAN}.name"),
        (in_span('"name":"\\x"'), "invalid escape in a string", _BEFORE + 8, f"{_SPAN}.name"),
        (in_span('"name":"\\u12g4"'), "expected four hexadecimal digits after \\u", _BEFORE + 12, f"{_SPAN}.name"),
        (in_span('"name":"\\udd1e"'), "unpaired surrogate", _BEFORE + 8, f"{_SPAN}.name"),
        (in_span('"name":"\\ud834\\u0041"'), "unpaired surrogate", _BEFORE + 8, f"{_SPAN}.name"),
        (in_span('"name":"')[:-7], "string without an end", _BEFORE + 8, f"{_SPAN}.name"),
        (in_span('"name":"\\')[:-7], "string without an end", _BEFORE + 9, f"{_SPAN}.name"),
        (in_span('"traceId":"abc"'), "expected pairs of hexadecimal digits", _BEFORE + 10, f"{_SPAN}.traceId"),
        (in_span('"spanId":"0g"'), "expected pairs of hexadecimal digits", _BEFORE + 9, f"{_SPAN}.spanId"),
        (
            in_span('"kind":"SPAN_KIND_SERVER"'),
            "expected the number of an enum value (OTLP/JSON knows no names), got a string",
            _BEFORE + 7,
            f"{_SPAN}.kind",
        ),
        (in_span('"kind":true'), "expected a whole number, got a boolean", _BEFORE + 7, f"{_SPAN}.kind"),
        (in_span('"kind":01'), "invalid number", _BEFORE + 7, f"{_SPAN}.kind"),
        (
            in_span('"startTimeUnixNano":"18446744073709551616"'),
            "expected a whole number from 0 to 18446744073709551615",
            _BEFORE + 20,
            f"{_SPAN}.startTimeUnixNano",
        ),
        (in_span('"flags":4294967296'), "expected a whole number from 0 to 4294967295", _BEFORE + 8, f"{_SPAN}.flags"),
        (in_span('"flags":-1'), "expected a whole number from 0 to 4294967295", _BEFORE + 8, f"{_SPAN}.flags"),
        (in_span('"flags":1.5'), "expected a whole number from 0 to 4294967295", _BEFORE + 8, f"{_SPAN}.flags"),
        (in_span('"flags":" 1"'), "expected a whole number from 0 to 4294967295", _BEFORE + 8, f"{_SPAN}.flags"),
        (
            _of_value('{"boolValue":"true"}'),
            "expected true or false, got a string",
            _BEFORE_VALUE + 13,
            f"{_VALUE}.boolValue",
        ),
        (
            _of_value('{"doubleValue":1e400}'),
            "expected a number within the range of a double",
            _BEFORE_VALUE + 15,
            f"{_VALUE}.doubleValue",
        ),
        (
            _of_value('{"doubleValue":"nan"}'),
            "expected a number within the range of a double",
            _BEFORE_VALUE + 15,
            f"{_VALUE}.doubleValue",
        ),
        (
            _of_value('{"doubleValue":true}'),
            "expected a number, got a boolean",
            _BEFORE_VALUE + 15,
            f"{_VALUE}.doubleValue",
        ),
        (_of_value('{"bytesValue":"a"}'), "expected base64", _BEFORE_VALUE + 14, f"{_VALUE}.bytesValue"),
        (_of_value('{"bytesValue":"QQ="}'), "expected base64", _BEFORE_VALUE + 14, f"{_VALUE}.bytesValue"),
        (_of_value('{"bytesValue":"Q Q="}'), "expected base64", _BEFORE_VALUE + 14, f"{_VALUE}.bytesValue"),
        (
            _of_value('{"intValue":1,"boolValue":true}'),
            "only one of intValue and boolValue may be set",
            _BEFORE_VALUE + 14,
            _VALUE,
        ),
        (in_span('"name":"') + b"\xff", "invalid UTF-8", len(in_span('"name":"')), f"{_SPAN}.name"),
        (b'{"a":1}\xff', "invalid UTF-8", 7, ""),
        (b'{"a"1}\xff', "expected ':', got a number", 4, ""),
    ],
)
def test_bad_text_is_refused_with_reason_and_place(text: bytes, reason: str, offset: int, path: str) -> None:
    """Reason, byte offset and JSON path of each kind of bad text; the reference refuses it too."""
    with pytest.raises(DecodeError) as caught:
        _native.json_to_protobuf(Signal.TRACES, text)
    assert (caught.value.reason, caught.value.offset, caught.value.path) == (reason, offset, path)
    if b"[[[" not in text:  # Python's parser has another limit for what is ignored
        with pytest.raises(Refused):
            parse(Signal.TRACES, text)


@pytest.mark.parametrize(("levels", "accepted"), [(99, True), (100, True), (101, False), (100_000, False)])
def test_depth_limit_is_that_of_the_binary_format(levels: int, accepted: bool) -> None:
    """Messages may nest 100 deep below the request, so that whatever is read as protobuf is read as JSON too."""
    values = levels - 5  # ResourceSpans, ScopeSpans, Span, KeyValue and the outermost AnyValue are around them
    nested = "".join('{"arrayValue":' if i % 2 == 0 else '{"values":[' for i in range(values))
    closing = "".join("}" if i % 2 == 0 else "]}" for i in reversed(range(values)))
    text = _of_value(nested + "{}" + closing)
    if accepted:
        assert read(Signal.TRACES, text) == canonical(parse(Signal.TRACES, text))
        assert json.loads(_native.protobuf_to_json(Signal.TRACES, read(Signal.TRACES, text))) == json.loads(text)
    else:
        with pytest.raises(DecodeError, match="nested deeper than 100 levels"):
            _native.json_to_protobuf(Signal.TRACES, text)


def test_written_text_is_compact_and_ordered() -> None:
    """Members in order of field number, lower-case identifiers, 64-bit integers in quotes, few escapes."""
    text = in_span(
        '"traceId":"AB","name":"a\\"\\\\\\/\\b\\u0000\\n\\r\\té","kind":2,"startTimeUnixNano":5,"droppedLinksCount":1,'
        '"attributes":[{"key":"k","value":{"doubleValue":1e300}},{"key":"k","value":{"bytesValue":"-_8"}}]'
    )
    written = _native.protobuf_to_json(Signal.TRACES, _native.json_to_protobuf(Signal.TRACES, text)[0])
    assert written == in_span(
        '"traceId":"ab","name":"a\\"\\\\/\\u0008\\u0000\\n\\r\\té","kind":2,"startTimeUnixNano":"5",'
        '"attributes":[{"key":"k","value":{"doubleValue":1e300}},{"key":"k","value":{"bytesValue":"+/8="}}],'
        '"droppedLinksCount":1'
    )


def test_refused_protobuf_has_no_text() -> None:
    """What the official library refuses is an error with its place, not half a text."""
    with pytest.raises(DecodeError) as caught:
        _native.protobuf_to_json(Signal.TRACES, b"\x0a" + delimited(b"\x1a\x01\xff"))
    assert (caught.value.reason, caught.value.offset, caught.value.path) == (
        "invalid UTF-8",
        4,
        "resource_spans[0].schema_url",
    )
