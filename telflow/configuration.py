"""Configuration files: YAML into a settings model, every mistake reported at once, each with its place.

    telflow.yaml:4:9: receivers.otlp.grpc.endpiont is not a known key
        4 |         endpiont: localhost:4317
          |         ^^^^^^^^
      expected: one of endpoint, max_request_bytes
      got:      endpiont
      hint:     did you mean endpoint?

`telflow validate` prints these; every command that reads a configuration refuses to start with them.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from telflow.describe import describe_type, known_keys, nested_models
from telflow.errors import ConfigError, nearest
from telflow.located_yaml import Document, Loc, Place, read_yaml
from telflow.settings import FROM_FILE

__all__ = ["ConfigurationError", "Problem", "dotted", "from_options", "load", "read"]

_Model = TypeVar("_Model", bound=BaseModel)
_SHOWN = 60  # characters of a wrong value that are shown
_EXPECTED_GOT = re.compile(
    r"(?:(?P<key>\w+): )?expected (?P<expected>.+?), got (?P<got>.+?)(?:; (?P<hint>.+))?", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration file.

    Attributes:
        file: The file's name as it was given.
        line: Line, counted from 1.
        column: Character in the line, counted from 1.
        key: The setting, as a dotted path; empty for the whole file.
        summary: What is wrong, in one clause.
        expected: What may stand there.
        got: What stands there.
        hint: What to do about it; empty when there is nothing better to say than `expected`.
        text: The line.
        width: How many characters from `column` on are meant.
    """

    file: str
    line: int
    column: int
    key: str
    summary: str
    expected: str
    got: str
    hint: str
    text: str
    width: int

    def __str__(self) -> str:
        lines = [f"{self.file}:{self.line}:{self.column}: {self.summary}"]
        if self.text.strip():
            number = f"{self.line:>5}"
            # A tab before the caret keeps it under its character, however wide the terminal draws tabs.
            before = re.sub(r"[^\t]", " ", self.text[: self.column - 1])
            caret = "^" * max(1, min(self.width, len(self.text) - self.column + 1))
            lines += [f"{number} | {self.text}", f"{' ' * len(number)} | {before}{caret}"]
        lines += [f"  expected: {self.expected}", f"  got:      {self.got}"]
        if self.hint:
            lines.append(f"  hint:     {self.hint}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data, for JSON."""
        return asdict(self)


class ConfigurationError(ConfigError):
    """A configuration file is wrong.

    Attributes:
        problems: Everything that is wrong with it, in the order of the file.
    """

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        count = len(self.problems)
        end = f"{count} problem{'s' if count != 1 else ''} in {self.problems[0].file}"
        return "\n\n".join([*(str(p) for p in self.problems), end])


def load(path: Path | str, model: type[_Model], *, environ: Mapping[str, str] | None = None) -> _Model:
    """Read a configuration file.

    Args:
        path: The file, UTF-8.
        model: What it must say.
        environ: Variables for ``${env:NAME}``; the process's own by default.

    Raises:
        ConfigurationError: The file cannot be read or is wrong; holds every problem found.
    """
    file = Path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigurationError([_unreadable(file, error)]) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        place = Place(line, error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1)
        found = _Found(place, (), "the file is not UTF-8", "UTF-8 text", f"byte 0x{data[error.start]:02x}")
        raise ConfigurationError([found.problem(str(path), "")]) from error
    return read(text, model, file=str(path), environ=environ)


def read(
    text: str, model: type[_Model], *, file: str = "telflow.yaml", environ: Mapping[str, str] | None = None
) -> _Model:
    """Read a configuration from text; see `load`.

    >>> from telflow.settings import Settings
    >>> class Example(Settings):
    ...     rows: int
    >>> read("rows: 5", Example)
    Example(rows=5)
    >>> read("rows: many", Example)
    Traceback (most recent call last):
    ...
    telflow.configuration.ConfigurationError: telflow.yaml:1:7: rows is not valid
        1 | rows: many
          |       ^^^^
      expected: a valid integer, unable to parse string as an integer
      got:      'many'
    <BLANKLINE>
    1 problem in telflow.yaml

    Raises:
        ConfigurationError: The text is wrong; holds every problem found.
    """
    document = read_yaml(text, os.environ if environ is None else environ)
    lines = text.splitlines()

    def line(place: Place) -> str:
        return lines[place.line - 1] if place.line <= len(lines) else ""

    found = [
        _Found(f.place, f.loc, f"{dotted(f.loc) or 'the file'} is not valid", f.expected, f.got, f.hint)
        for f in document.faults
    ]
    value = {} if document.value is None else document.value
    settings: _Model | None = None
    if not isinstance(value, dict):
        found.append(_Found(document.place(()), (), "the file is not a configuration", "a mapping", _kind(value)))
    elif value or not found:
        try:
            settings = _validate(model, value, document)
        except ValidationError as error:
            faulty = {f.loc for f in document.faults}
            found += [e for e in _explain(error, model, document) if e.loc not in faulty]
    if found or settings is None:
        found.sort(key=lambda f: (f.place.line, f.place.column))
        raise ConfigurationError([f.problem(file, line(f.place)) for f in found])
    return settings


def from_options(model: type[_Model], options: Mapping[str, Any], names: Mapping[str, str] | None = None) -> _Model:
    """Build settings from a command's options; one that is None was not given.

    Args:
        model: The settings.
        options: Values by key.
        names: What a key is called on the command line, by its dotted path, where that differs.

    Raises:
        ConfigError: An option is wrong; names every one that is.
    """
    try:
        return model.model_validate({key: value for key, value in options.items() if value is not None})
    except ValidationError as error:
        found = _explain(error, model, Document(values={loc: Place(1, 1) for loc in _locs(options)}))
        lines = []
        for each in found:
            key = dotted(each.loc)
            name = (names or {}).get(key, key)
            hint = f"; {each.hint}" if each.hint else ""
            lines.append(f"{name + ': ' if name else ''}expected {each.expected}, got {each.got}{hint}")
        raise ConfigError("\n".join(lines)) from error


def _locs(value: Any, loc: Loc = ()) -> Iterator[Loc]:
    """Yield the location of everything in a value."""
    yield loc
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _locs(inner, (*loc, key))
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _locs(inner, (*loc, number))


@dataclass(slots=True)
class _Found:
    """A mistake before it is put into the words of a `Problem`."""

    place: Place
    loc: Loc
    summary: str
    expected: str
    got: str
    hint: str = ""
    suggests: Loc | None = None

    def problem(self, file: str, text: str) -> Problem:
        place = self.place
        return Problem(
            file=file,
            line=place.line,
            column=place.column,
            key=dotted(self.loc),
            summary=self.summary,
            expected=self.expected,
            got=self.got,
            hint=self.hint,
            text=text,
            width=place.width,
        )


def _validate(model: type[_Model], value: dict[str, Any], document: Document) -> _Model:
    try:
        return model.model_validate(value, context=FROM_FILE)
    except ValidationError as error:
        # A variable's value was read as YAML; where text is wanted it is text, as in the Collector (PASSWORD=123456).
        changed = False
        for detail in error.errors(include_url=False):
            loc = _known_loc(detail["loc"], document)
            if detail["type"] == "string_type" and loc in document.variables:
                changed |= _replace(value, loc, document.variables[loc])
        if not changed:
            raise
        return model.model_validate(value, context=FROM_FILE)


def _replace(value: Any, loc: Loc, text: str) -> bool:
    for part in loc[:-1]:
        value = value[part]
    was, value[loc[-1]] = value[loc[-1]], text
    return was is not text


def _explain(error: ValidationError, model: type[BaseModel], document: Document) -> list[_Found]:
    found: list[_Found] = []
    for detail in error.errors(include_url=False):
        new = _explain_one(detail, model, document)
        same = next((e for e in found if e.loc == new.loc and e.summary == new.summary), None)
        if same is None:
            found.append(new)
        elif new.expected not in same.expected.split(", or "):  # the members of a union each say what they want
            same.expected += f", or {new.expected}"
    suggested = {e.suggests for e in found if e.suggests}
    return [e for e in found if not (e.got == "nothing" and e.loc in suggested)]


def _explain_one(detail: ErrorDetails, model: type[BaseModel], document: Document) -> _Found:
    loc = _known_loc(detail["loc"], document)
    key = dotted(loc)
    match detail["type"]:
        case "extra_forbidden":
            parent = loc[:-1]
            keys = sorted({k for m in _models_at(model, parent) for k in known_keys(m)})
            near = nearest(str(loc[-1]), keys) or _folded(str(loc[-1]), keys)
            place = document.keys.get(loc, document.place(loc))
            hint = f"did you mean {near}?" if near else ""
            expected = f"one of {', '.join(keys)}" if keys else "no key"
            suggests = (*parent, near) if near else None
            return _Found(place, loc, f"{key} is not a known key", expected, str(loc[-1]) or "''", hint, suggests)
        case "missing":
            missing = (*loc, detail["loc"][-1])
            parent_place = document.keys.get(loc, document.place(loc))
            expected = f"{detail['loc'][-1]}: {_wanted(model, missing)}"
            return _Found(parent_place, missing, f"{dotted(missing)} is missing", expected, "nothing")
        case "literal_error" | "enum":
            choices = [c.strip().strip("'") for c in re.split(r", | or ", str(detail["ctx"]["expected"]))]
            near = nearest(str(detail["input"]), choices) or _folded(str(detail["input"]), choices)
            hint = f"did you mean {near}?" if near else ""
            expected = f"one of {', '.join(choices)}"
        case "union_tag_invalid":
            return _unknown_kind(detail, loc, document)
        case _:
            expected, hint = _message(detail), ""
    got = _got(detail["input"], loc, document)
    stated = _EXPECTED_GOT.fullmatch(expected)
    if stated:
        expected, hint = stated["expected"], stated["hint"] or hint
        if stated["key"]:  # a rule over several keys that says which of them to change
            loc = (*loc, stated["key"])
        got = got if loc in document.variables else stated["got"]
    summary = f"{dotted(loc)} is not valid" if loc else "the configuration is not valid"
    whole = isinstance(detail["input"], dict) and not (stated and stated["key"])
    place = document.keys.get(loc, document.place(loc)) if whole else document.place(loc)
    return _Found(place, loc, summary, expected, got, hint)


def _unknown_kind(detail: ErrorDetails, loc: Loc, document: Document) -> _Found:
    """One of several models was to be chosen by a key, and the key says none of them."""
    tag = str(detail["ctx"]["tag"])
    choices = [choice.strip().strip("'") for choice in str(detail["ctx"]["expected_tags"]).split(",")]
    near = nearest(tag, choices) or _folded(tag, choices)
    loc = (*loc, str(detail["ctx"]["discriminator"]).strip("'"))
    expected, hint = f"one of {', '.join(choices)}", f"did you mean {near}?" if near else ""
    return _Found(document.place(loc), loc, f"{dotted(loc)} is not valid", expected, _got(tag, loc, document), hint)


def _message(detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message.removeprefix("Input should be ").removeprefix("Input should ")
    if detail["type"] == "model_type":
        return "a mapping"
    return {"a valid dictionary": "a mapping", "a valid string": "text"}.get(message, message)


def _got(value: Any, loc: Loc, document: Document) -> str:
    if loc in document.variables:  # it may be a secret: say what it is, not what it says
        return f"{_kind(value)} from an environment variable"
    if isinstance(value, (dict, list)):
        return _kind(value)
    if value is None:
        return "nothing"
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _kind(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int():
            return "an integer"
        case float():
            return "a number"
        case str():
            return f"text of {len(value)} characters"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _known_loc(loc: Loc, document: Document) -> Loc:
    """Drop from pydantic's location what stands in no file: names of union members and of validators."""
    kept: Loc = ()
    for part in loc:
        if (*kept, part) in document.values:
            kept = (*kept, part)
    return kept


def _models_at(model: type[BaseModel], loc: Loc) -> Iterator[type[BaseModel]]:
    """Yield the models that can stand at `loc`."""
    for annotation in _annotations_at(model, loc):
        yield from nested_models(annotation)


def _annotations_at(annotation: Any, loc: Loc) -> Iterator[Any]:
    if not loc:
        yield annotation
        return
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            if loc[0] in (name, field.alias):
                yield from _annotations_at(field.annotation, loc[1:])
        return
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is dict or (isinstance(origin, type) and issubclass(origin, Mapping)):
        yield from _annotations_at(args[1], loc[1:])
    elif isinstance(origin, type) and issubclass(origin, (list, tuple, set, frozenset)):
        yield from _annotations_at(args[0], loc[1:])
    else:  # Annotated and unions: look into each member
        for part in args:
            yield from _annotations_at(part, loc)


def _wanted(model: type[BaseModel], loc: Loc) -> str:
    for owner in _models_at(model, loc[:-1]):
        for name, field in owner.model_fields.items():
            if loc[-1] in (name, field.alias):
                return describe_type(field.annotation, field.metadata)
    return "a value"


def _folded(name: str, known: list[str]) -> str | None:
    """Find a key written in another convention: maxBytes, max-bytes, Max_Bytes."""
    plain = {re.sub(r"[^a-z0-9]", "", k.lower()): k for k in known}
    return plain.get(re.sub(r"[^a-z0-9]", "", name.lower()))


def dotted(loc: Loc) -> str:
    """Write a location as people do: ``exporters.otlp[2].headers``."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc).removeprefix(".")


def _unreadable(path: Path, error: OSError) -> Problem:
    hint = ""
    if isinstance(error, FileNotFoundError):
        try:
            beside = [p.name for p in path.parent.iterdir() if p.suffix in {".yaml", ".yml"}]
        except OSError:
            beside = []
        near = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.4)
        hint = f"did you mean {path.parent / near[0]}?" if near else ""
    got = (error.strerror or str(error)).lower()
    return _Found(Place(1, 1), (), "the file cannot be read", "a readable file", got, hint).problem(str(path), "")
