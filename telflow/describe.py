"""Settings models described in words: for error messages and for the configuration reference."""

from __future__ import annotations

import ast
import enum
import inspect
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import AwareDatetime, BaseModel, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from telflow.settings import format_duration, parse_switch

__all__ = ["Option", "describe_type", "known_keys", "nested_models", "options"]

_WORDS: dict[Any, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    bytes: "text",
    Path: "path",
    SecretStr: "text (secret)",
    timedelta: "duration",
    datetime: "time",
    AwareDatetime: "time with its zone",
    type(None): "null",
    Any: "anything",
    dict: "mapping",
    list: "list",
}


@dataclass(frozen=True, slots=True)
class Option:
    """One key of a settings model.

    Attributes:
        key: As written in a file.
        takes: What may stand there, in words: ``integer, at least 1``.
        default: As written in a file; None when the key is required.
        text: The field's docstring.
        models: The settings models that can stand below this key.
    """

    key: str
    takes: str
    default: str | None
    text: str
    models: tuple[type[BaseModel], ...]


def options(model: type[BaseModel]) -> list[Option]:
    """Return the keys of a settings model, in the order of their definition."""
    texts: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if issubclass(owner, BaseModel) and owner is not BaseModel:
            texts |= _docstrings(owner)
    return [
        Option(
            key=field.alias or name,
            takes=describe_type(field.annotation, field.metadata),
            default=_default(model, name, field),
            text=texts.get(name, ""),
            models=tuple(nested_models(field.annotation)),
        )
        for name, field in model.model_fields.items()
    ]


def known_keys(model: type[BaseModel]) -> list[str]:
    """Return the keys that a mapping of this model may have."""
    return [field.alias or name for name, field in model.model_fields.items()]


def nested_models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the settings models named anywhere in a type: itself, in a union, a list or a mapping."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for part in get_args(annotation):
        if not isinstance(part, (str, bytes, int)):
            yield from nested_models(part)


def describe_type(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Say in words what a field of this type takes.

    >>> describe_type(list[int] | None)
    'list of integer, or null'
    """
    if any(isinstance(m, BeforeValidator) and m.func is parse_switch for m in metadata):
        return "mapping, or false"
    return ", ".join([_type(annotation), *_limits(metadata)])


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Read the docstrings under a class's own fields."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    texts = {}
    for field, below in pairwise(definition.body if isinstance(definition, ast.ClassDef) else ()):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = inspect.cleandoc(text)
            case _:
                pass
    return texts


def _type(annotation: Any) -> str:
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return describe_type(args[0], args[1:])
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in args)
    if origin in (Union, types.UnionType):
        words = [_type(a) for a in args if a is not type(None)]
        return " or ".join(dict.fromkeys(words)) + (", or null" if type(None) in args else "")
    if origin in (dict, Mapping):
        return f"mapping of names to {_type(args[1])}"
    if origin in (list, tuple, set, frozenset, Sequence):
        return f"list of {_type(args[0])}"
    if inspect.isclass(annotation) and issubclass(annotation, enum.Enum):
        return "one of " + ", ".join(str(member.value) for member in annotation)
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return "mapping"
    return getattr(annotation, "__name__", str(annotation))


def _limits(metadata: Sequence[Any]) -> list[str]:
    found = []
    for limit in metadata:
        match limit:
            case Ge():
                found.append(f"at least {_bound(limit.ge)}")
            case Gt():
                found.append(f"more than {_bound(limit.gt)}")
            case Le():
                found.append(f"at most {_bound(limit.le)}")
            case Lt():
                found.append(f"less than {_bound(limit.lt)}")
            case MinLen():
                found.append(f"at least {limit.min_length} long")
            case MaxLen():
                found.append(f"at most {limit.max_length} long")
            case _:
                pass
    return found


def _bound(value: object) -> str:
    return format_duration(value) if isinstance(value, timedelta) else str(value)


def _default(model: type[BaseModel], name: str, field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return None
    if value is None and describe_type(field.annotation, field.metadata).endswith(", or false"):
        return "false"
    if isinstance(value, (set, frozenset)):  # an order that does not change from run to run
        value = tuple(sorted(value))
    shown = model.model_construct(**{name: value}).model_dump(mode="json", include={name}, warnings=False)[name]
    return _yaml(shown)


def _yaml(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return value or '""'
        case list() | tuple():
            return "[" + ", ".join(_yaml(v) for v in value) + "]"
        case dict():
            return "{" + ", ".join(f"{k}: {_yaml(v)}" for k, v in value.items()) + "}"
        case _:
            return str(value)
