"""YAML read with the place of every key and value kept, so that a wrong setting can be pointed at.

Reads YAML 1.2 through ruamel.yaml's node graph (a plain loader forgets positions and stops at the first fault) and
substitutes environment variables as users of the OpenTelemetry Collector write them:

* ``${env:NAME}`` or ``${NAME}``: the variable's value; where it is the whole unquoted value it is read as YAML.
* ``${env:NAME:-default}``: the default where the variable is not set.
* ``$$``: one dollar sign.

Unlike the Collector, which goes on with an empty value, a variable that is not set and has no default is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

__all__ = ["Document", "Fault", "Loc", "Place", "read_yaml"]

Loc = tuple[str | int, ...]
"""Path to a value: mapping keys and list indices from the root."""

_MAX_NODES = 100_000
_TAG = "tag:yaml.org,2002:"
_READ_TAGS = {_TAG + kind for kind in ("null", "bool", "int", "float", "str")}
_VARIABLE = re.compile(r"\$\$|\$\{(?P<scheme>env:)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}]*)?\}|\$\{[^}]*\}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: line and column count from 1, width is the number of characters to underline."""

    line: int
    column: int
    width: int = 1


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with the text itself, before any setting is looked at."""

    place: Place
    loc: Loc
    expected: str
    got: str
    hint: str = ""


@dataclass(slots=True)
class Document:
    """What a YAML text says and where it says it.

    Attributes:
        value: The plain value: dict, list, str, int, float, bool or None.
        keys: Place of the key that introduces a value; list items and the root have none.
        values: Place of each value.
        variables: Values that came from the environment, wholly or in part: the text after substitution.
        faults: Everything wrong with the text.
    """

    value: Any = None
    keys: dict[Loc, Place] = field(default_factory=dict)
    values: dict[Loc, Place] = field(default_factory=dict)
    variables: dict[Loc, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def place(self, loc: Loc) -> Place:
        """Return where the value at `loc` stands, or the nearest thing around it that the text holds."""
        for end in range(len(loc), -1, -1):
            found = self.values.get(loc[:end])
            if found is not None:
                return found if end == len(loc) else self.keys.get(loc[:end], found)
        return Place(1, 1)


def read_yaml(text: str, environ: Mapping[str, str]) -> Document:
    """Read one YAML document; all faults are collected in the result, none is raised.

    Args:
        text: The document.
        environ: The variables that ``${env:NAME}`` may name.

    >>> read_yaml("port: ${env:PORT:-4317}", {}).value
    {'port': 4317}
    """
    document = Document()
    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        document.faults.append(_syntax_fault(error, text))
        return document
    except YAMLError as error:  # a character YAML does not admit; its position is an offset
        offset = getattr(error, "position", 0)
        before = f"{text[:offset]}^".splitlines()
        place = Place(len(before), len(before[-1]))
        document.faults.append(Fault(place, (), "text that YAML admits", repr(text[offset : offset + 1])))
        return document
    if root is not None:
        reader = _Reader(yaml, environ, document)
        document.value = reader.read(root, (), frozenset())
    return document


def _syntax_fault(error: MarkedYAMLError, text: str) -> Fault:
    mark = error.problem_mark or error.context_mark
    place = Place(mark.line + 1, mark.column + 1) if mark is not None else Place(1, 1)
    lines = text.splitlines()
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    hint = ""
    if "\t" in line[: place.column]:
        hint = "indent with spaces; YAML does not allow tabs there"
    elif "mapping values are not allowed" in str(error.problem):
        hint = "quote a value that holds ': ', and indent the keys of one mapping equally"
    elif "another document" in str(error.problem):
        hint = "keep one document in the file; remove the line '---'"
    got = " ".join(str(part) for part in (error.context, error.problem) if part)
    return Fault(place, (), "valid YAML", got, hint)


class _Reader:
    """Turns nodes into plain values and fills the document's places."""

    def __init__(self, yaml: YAML, environ: Mapping[str, str], document: Document) -> None:
        self._yaml = yaml
        self._environ = environ
        self._document = document
        self._nodes = 0

    def read(self, node: Node, loc: Loc, parents: frozenset[int]) -> Any:
        self._nodes += 1
        if self._nodes > _MAX_NODES:  # aliases of aliases of aliases
            if self._nodes == _MAX_NODES + 1:
                self._fault(node, loc, f"at most {_MAX_NODES} values", "more, through aliases")
            return None
        self._document.values[loc] = _place(node)
        if isinstance(node, ScalarNode):
            return self._scalar(node, loc)
        if id(node) in parents:
            self._fault(node, loc, "a value", "an alias of something it is part of")
            return None
        parents |= {id(node)}
        if isinstance(node, SequenceNode):
            return [self.read(item, (*loc, i), parents) for i, item in enumerate(node.value)]
        assert isinstance(node, MappingNode)  # noqa: S101 - there is no fourth kind
        return self._mapping(node, loc, parents)

    def _mapping(self, node: MappingNode, loc: Loc, parents: frozenset[int]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: list[tuple[Node, Node]] = []
        first: dict[str, Place] = {}
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                merged.append((key, value))
                continue
            if not isinstance(key, ScalarNode):
                self._fault(key, loc, "text as a key", "a list or a mapping")
                continue
            name = str(key.value)
            place = _place(key)
            if name in first:
                was = first[name]
                self._fault(key, (*loc, name), "each key once", f"{name!r} again; it stands at line {was.line} too")
                continue
            first[name] = place
            inner = (*loc, name)
            self._document.keys[inner] = place
            result[name] = self.read(value, inner, parents)
        for key, value in merged:
            self._merge(key, value, loc, parents, result)
        return result

    def _merge(self, key: Node, value: Node, loc: Loc, parents: frozenset[int], into: dict[str, Any]) -> None:
        """Add what ``<<: *anchor`` brings; a key that stands in the mapping itself wins."""
        sources = value.value if isinstance(value, SequenceNode) else [value]
        for source in sources:
            if not isinstance(source, MappingNode):
                self._fault(key, loc, "an alias of a mapping after <<", "something else")
                continue
            if id(source) in parents:
                self._fault(key, loc, "a value", "an alias of something it is part of")
                continue
            for name_node, item in source.value:
                name = str(name_node.value)
                if isinstance(name_node, ScalarNode) and name not in into:
                    self._document.keys[(*loc, name)] = _place(name_node)
                    into[name] = self.read(item, (*loc, name), parents | {id(source)})

    def _scalar(self, node: ScalarNode, loc: Loc) -> Any:
        if not str(node.tag).startswith(_TAG):
            self._fault(node, loc, "plain YAML", f"the tag {node.tag}")
            return None
        text = str(node.value)
        if "$" not in text:
            return self._plain(node)
        replaced, whole = self._substitute(node, text, loc)
        if not whole or node.style is not None or text.endswith(":-}"):
            return replaced
        try:
            return YAML(typ="safe", pure=True).load(replaced)
        except YAMLError:
            return replaced

    def _plain(self, node: ScalarNode) -> Any:
        if node.tag not in _READ_TAGS:  # no setting is a date; the model reads the text
            return str(node.value)
        return self._yaml.constructor.construct_object(node)

    def _substitute(self, node: ScalarNode, text: str, loc: Loc) -> tuple[str, bool]:
        """Return the text with its variables replaced, and whether it was one variable and nothing else."""
        named = False

        def replace(match: re.Match[str]) -> str:
            nonlocal named
            if match[0] == "$$":
                return "$"
            name, default = match["name"], match["default"]
            if name is None:
                self._fault(node, loc, "${env:NAME} or ${env:NAME:-default}", match[0], "write $$ for a dollar sign")
                return ""
            named = True
            value = self._environ.get(name)
            if value is None and default is not None:
                return default[2:]
            if value is None:
                hint = f"set {name}, or write ${{env:{name}:-default}}"
                self._fault(node, loc, f"the environment variable {name}", "nothing: it is not set", hint)
                return ""
            return value

        replaced = _VARIABLE.sub(replace, text)
        if named:
            self._document.variables[loc] = replaced
        return replaced, named and _VARIABLE.fullmatch(text) is not None

    def _fault(self, node: Node, loc: Loc, expected: str, got: str, hint: str = "") -> None:
        self._document.faults.append(Fault(_place(node), loc, expected, got, hint))


def _place(node: Node) -> Place:
    start, end = node.start_mark, node.end_mark
    width = end.column - start.column if end.line == start.line else 1
    return Place(start.line + 1, start.column + 1, max(1, width))
