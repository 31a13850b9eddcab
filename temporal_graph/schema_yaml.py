"""YAML read strictly, and the cursor that knows its key path: errors say where, what was expected, what was found."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from temporal_graph.duration import DURATION_EXPECTED, parse_duration_us
from temporal_graph.errors import SchemaError

NAME_LENGTH_MAX = 119
"""The native core's room for a name; the joined name of a composite link fits it too."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME_EXPECTED = f"a name of letters, digits and _ (at most {NAME_LENGTH_MAX}), starting with neither a digit nor __"


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, refusing what YAML lets pass: the same key twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                key = str(key_node.value)
                if key in seen:
                    line = key_node.start_mark.line + 1
                    raise SchemaError(f"line {line}", "each key once in a mapping", f"{key} a second time")
                seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Cursor:
    """Parse one YAML document and return a cursor at its root.

    Raises:
        SchemaError: not YAML, or a key stands twice in one mapping; the path names the line.
    """
    try:
        document = yaml.load(text, Loader=_StrictLoader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        path = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise SchemaError(path, "YAML", getattr(error, "problem", None) or str(error)) from error
    return Cursor("", document)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A value of the document and the path that leads to it. Every reading method raises SchemaError on surprise."""

    path: str
    value: Any

    def error(self, expected: str, choices: Collection[str] = ()) -> SchemaError:
        """Return (not raise) the error that this value is not what was expected."""
        return SchemaError(self.path, expected, self.value, choices=choices)

    def at(self, key: str | int) -> Cursor:
        """Return the cursor at a key (None where it is absent) or position."""
        value = self.value.get(key) if isinstance(self.value, dict) else self.value[key]
        return Cursor(self._join(key), value)

    def has(self, key: str) -> bool:
        """Say whether the mapping has the key."""
        return key in self.value

    def _join(self, key: str | int) -> str:
        if isinstance(key, int):
            return f"{self.path}[{key}]"
        return f"{self.path}.{key}" if self.path else key

    def mapping(self, allowed: Collection[str] | None = None, required: Collection[str] = ()) -> Cursor:
        """Require a mapping with text keys, of the allowed keys only, and with all required ones."""
        if not isinstance(self.value, dict):
            keys = f" with the keys {', '.join(allowed)}" if allowed is not None else ""
            raise self.error(f"a mapping{keys}")
        for key in self.value:
            if not isinstance(key, str):
                expected = "text keys (quote what YAML reads otherwise: on, yes, no, numbers, dates)"
                raise SchemaError(self.path, expected, key)
            if allowed is not None and key not in allowed:
                raise SchemaError(self._join(key), f"one of the keys {', '.join(allowed)}", key, choices=allowed)
        for key in required:
            if key not in self.value:
                raise SchemaError(self._join(key), f"the required key {key!r}", None)
        return self

    def entries(self, allowed: Collection[str] | None = None) -> Iterator[tuple[str, Cursor]]:
        """Walk a mapping in its own order; nothing at all counts as an empty one."""
        if self.value is None:
            return
        for key in self.mapping(allowed).value:
            yield key, self.at(key)

    def elements(self) -> Iterator[Cursor]:
        """Walk a list; nothing at all counts as an empty one."""
        if self.value is None:
            return
        if not isinstance(self.value, list):
            raise self.error("a list")
        for position in range(len(self.value)):
            yield self.at(position)

    def name(self) -> str:
        """Require a name: of a table, a column or the schema."""
        return checked_name(self.path, self.value)

    def text(self, expected: str = "a text") -> str:
        """Require a text that is not empty."""
        if not isinstance(self.value, str) or not self.value:
            raise self.error(expected)
        return self.value

    def choice(self, choices: Collection[str], expected: str | None = None) -> str:
        """Require one of some words."""
        if not isinstance(self.value, str) or self.value not in choices:
            raise self.error(expected or f"one of {', '.join(choices)}", choices)
        return self.value

    def boolean(self, default: bool = False) -> bool:
        """Require true or false; the default where the key is absent."""
        if self.value is None:
            return default
        if not isinstance(self.value, bool):
            raise self.error("true or false")
        return self.value

    def whole_number(self, minimum: int, maximum: int) -> int:
        """Require an integer within bounds, both included."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not minimum <= self.value <= maximum:
            raise self.error(f"a whole number from {minimum} to {maximum}")
        return self.value

    def duration_us(self) -> int:
        """Require a duration; returns microseconds."""
        if not isinstance(self.value, str):
            raise self.error(DURATION_EXPECTED)
        try:
            return parse_duration_us(self.value)
        except ValueError:
            raise self.error(DURATION_EXPECTED) from None


def checked_name(path: str, name: object) -> str:
    """Return `name` if it can name a table or a column; raises SchemaError at `path` otherwise."""
    valid = isinstance(name, str) and _NAME.fullmatch(name) and len(name) <= NAME_LENGTH_MAX
    if not isinstance(name, str) or not valid or name.startswith("__"):
        raise SchemaError(path, _NAME_EXPECTED, name)
    return name


def fitting_names(names: Sequence[str]) -> list[str]:
    """Names of a file's columns, or of files, as a schema may write them: `Order Date` is Order_Date, `2B` is _2B.

    A name that fits stays; one whose fitting name is taken stays too, and fits no schema.
    """
    taken, found = set(names), []
    for name in names:
        fitting = name
        if not _NAME.fullmatch(name):
            fitting = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or name
            fitting = f"_{fitting}" if fitting[:1].isdigit() else fitting
            fitting = name if fitting in taken else fitting
            taken.add(fitting)
        found.append(fitting)
    return found
