"""OTLP/JSON through the official library: `google.protobuf.json_format` with OTLP's exceptions applied around it.

The slow reference for tests of the native transcoder. Where `json_format` takes more than the JSON mapping allows
(it leans on what Python's `int`, `float` and `base64` take), the reference refuses, as telflow does:
numbers in strings follow JSON's grammar, base64 has no foreign characters, a message is an object.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from telflow.schema import Signal
from tests.oracle import REQUESTS, canonical

__all__ = ["Refused", "meaning", "parse", "to_dict"]

_IDS = {"trace_id", "span_id", "parent_span_id"}
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_BASE64 = re.compile(r"(?:[\w+/-]{4})*(?:[\w+/-]{2}(?:==)?|[\w+/-]{3}=?)?", re.ASCII)
_WORDS = {"NaN", "Infinity", "-Infinity"}
_FLOATS = {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}


class Refused(Exception):  # noqa: N818 (not an error of the tests)
    """The text is not an OTLP/JSON request."""


def to_dict(message: Message) -> dict[str, Any]:
    """The JSON object of a message, identifiers in hexadecimal and enums as numbers."""
    found = json_format.MessageToDict(message, use_integers_for_enums=True)
    return {name: _outward(field, found[name]) for name, field in _fields(message.DESCRIPTOR).items() if name in found}


def meaning(request: Message) -> bytes:
    """Canonical bytes of what JSON can say of a request: all of it, but it knows only one NaN."""
    copy = type(request)()
    copy.CopyFrom(request)
    _unify_nan(copy)
    return canonical(copy)


def _unify_nan(message: Message) -> None:
    for field, value in message.ListFields():
        elements = value if field.is_repeated else [value]
        if field.message_type:
            for element in elements:
                _unify_nan(element)
        elif field.cpp_type in _FLOATS and field.is_repeated:
            value[:] = [math.nan if math.isnan(number) else number for number in value]
        elif field.cpp_type in _FLOATS and math.isnan(value):
            setattr(message, field.name, math.nan)


def parse(signal: Signal, text: bytes) -> Any:
    """The request an OTLP/JSON text means.

    Raises:
        Refused: It means none.
    """
    request: Any = REQUESTS[signal]()
    try:
        content = json.loads(text.decode(), object_pairs_hook=_distinct, parse_constant=_no_constant)
        json.dumps(content, ensure_ascii=False).encode()  # an unpaired surrogate anywhere is not text
        # The limit counts the outermost message; the binary format's does not.
        json_format.ParseDict(_inward(request.DESCRIPTOR, content), request, max_recursion_depth=101)
    except (ValueError, TypeError, OverflowError, json_format.ParseError) as error:
        raise Refused(str(error)) from error
    return request


def _fields(descriptor: Any) -> dict[str, Any]:
    return {field.json_name: field for field in descriptor.fields}


def _outward(field: Any, value: Any) -> Any:
    if isinstance(value, list):
        return [_outward(field, element) for element in value]
    if field.message_type:
        fields = _fields(field.message_type)
        return {name: _outward(fields[name], inner) for name, inner in value.items()}
    return base64.b64decode(value).hex() if field.name in _IDS else value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise Refused("duplicate name")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise Refused(f"{name} is not JSON")


def _inward(descriptor: Any, content: Any) -> dict[str, Any]:
    """What `json_format` reads as OTLP means it: names in lowerCamelCase only, others dropped."""
    if not isinstance(content, dict):
        raise Refused("expected an object")
    fields = _fields(descriptor)
    return {name: _value(fields[name], value) for name, value in content.items() if name in fields}


def _value(field: Any, value: Any) -> Any:
    if value is None:
        return None
    if field.is_repeated:
        if not isinstance(value, list) or None in value:
            raise Refused("expected an array without null")
        return [_element(field, element) for element in value]
    return _element(field, value)


def _element(field: Any, value: Any) -> Any:
    if field.message_type:
        return _inward(field.message_type, value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes(field, value)
    if field.type == FieldDescriptor.TYPE_ENUM:
        if type(value) not in (int, float) or int(value) != value:
            raise Refused("expected a whole number")
        return int(value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING or field.type == FieldDescriptor.TYPE_BOOL:
        return value
    if isinstance(value, bool):
        raise Refused("expected a number")
    is_word = field.cpp_type in _FLOATS and value in _WORDS
    if isinstance(value, str) and not is_word and not _NUMBER.fullmatch(value):
        raise Refused("expected a number")
    if field.cpp_type in _FLOATS and not is_word and abs(float(value)) == float("inf"):
        raise Refused("too large for a double")
    return value


def _bytes(field: Any, value: Any) -> str:
    if not isinstance(value, str):
        raise Refused("expected a string")
    if field.name in _IDS:
        if not re.fullmatch("(?:[0-9a-fA-F]{2})*", value):
            raise Refused("expected hexadecimal digits")
        return base64.b64encode(binascii.unhexlify(value)).decode()
    if not _BASE64.fullmatch(value):
        raise Refused("expected base64")
    return value
