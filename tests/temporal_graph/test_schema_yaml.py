"""YAML read strictly, with the path of every surprise."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from temporal_graph.errors import SchemaError
from temporal_graph.schema_yaml import NAME_LENGTH_MAX, Cursor, checked_name, fitting_names, read_yaml

TEXT = """
list: [one, {deep: 3}]
text: word
number: 7
flag: true
"""


@pytest.fixture
def root() -> Cursor:
    """A cursor at the root of a small document."""
    return read_yaml(TEXT)


def test_paths(root: Cursor) -> None:
    """A cursor's path is written as keys joined by dots and positions in brackets."""
    deep = root.at("list").at(1).at("deep")
    assert (deep.path, deep.value) == ("list[1].deep", 3)
    assert [element.path for element in root.at("list").elements()] == ["list[0]", "list[1]"]
    assert [key for key, _ in root.entries()] == ["list", "text", "number", "flag"]


@pytest.mark.parametrize(
    ("text", "line"), [("a: 1\nb: 2\na: 3", 3), ("x:\n  - {k: 1, k: 2}", 2), ("a: {b: {c: 1, d: 2, c: 1}}", 1)]
)
def test_a_key_stands_once(text: str, line: int) -> None:
    """The same key twice in one mapping, at any depth, is refused with its line; YAML itself would keep the last."""
    with pytest.raises(SchemaError, match=f"line {line}: expected each key once"):
        read_yaml(text)


def test_the_same_key_in_two_mappings() -> None:
    """Sibling mappings may use the same keys."""
    assert read_yaml("a: {k: 1}\nb: {k: 2}").value == {"a": {"k": 1}, "b": {"k": 2}}


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\tx: 1", "a: !!python/object:os.system {}"])
def test_not_yaml(text: str) -> None:
    """What is not (safe) YAML is a schema error that names line and column."""
    with pytest.raises(SchemaError, match=r"line 1, column \d+: expected YAML"):
        read_yaml(text)


def test_an_empty_document_is_no_mapping() -> None:
    """Nothing at all is not mistaken for an empty schema."""
    with pytest.raises(SchemaError, match="expected a mapping, found nothing"):
        read_yaml("").mapping()


def test_unknown_and_missing_keys(root: Cursor) -> None:
    """A key that is not allowed is named with its nearest allowed one; a required key that is absent by its path."""
    with pytest.raises(SchemaError, match=r"^text: .*did you mean 'texts'"):
        root.mapping(("list", "texts", "number", "flag"))
    with pytest.raises(SchemaError, match=r"^more: expected the required key 'more', found nothing"):
        root.mapping(required=("more",))


def test_keys_are_text() -> None:
    """Keys that YAML turns into booleans or numbers are refused with the advice to quote them."""
    with pytest.raises(SchemaError, match="quote what YAML reads otherwise"):
        read_yaml("a: {on: 1}").at("a").mapping()


@pytest.mark.parametrize(
    ("read", "right", "wrong"),
    [
        (Cursor.name, "word", 7),
        (Cursor.text, "word", ""),
        (Cursor.text, "word", 7),
        (lambda cursor: cursor.choice(("a", "b")), "a", "c"),
        (lambda cursor: cursor.choice(("a", "b")), "b", ["a"]),
        (Cursor.boolean, True, "true"),
        (Cursor.boolean, False, 0),
        (lambda cursor: cursor.whole_number(1, 9), 9, 10),
        (lambda cursor: cursor.whole_number(1, 9), 1, 0),
        (lambda cursor: cursor.whole_number(0, 9), 5, True),
        (lambda cursor: cursor.whole_number(1, 9), 5, 5.0),
        (lambda cursor: list(cursor.elements()) or cursor.value, [], "text"),
        (lambda cursor: cursor.mapping().value, {"a": 1}, ["a"]),
    ],
)
def test_each_reading_checks(read: Callable[[Cursor], object], right: object, wrong: object) -> None:
    """Each kind of value is returned when right, and refused at its path when of another type or out of bounds."""
    assert read(Cursor("here", right)) == right
    with pytest.raises(SchemaError) as caught:
        read(Cursor("here", wrong))
    assert caught.value.path == "here"
    assert caught.value.found == wrong


def test_durations_are_read_as_microseconds() -> None:
    """A duration gives microseconds; a bare number has no unit and is refused."""
    assert Cursor("d", "5s").duration_us() == 5_000_000
    for wrong in (5, "5", "5 s", None):
        with pytest.raises(SchemaError, match=r"^d: expected a duration such as"):
            Cursor("d", wrong).duration_us()


def test_absent_values() -> None:
    """An absent list or mapping is empty, an absent flag is its default."""
    nothing = Cursor("x", None)
    assert (list(nothing.elements()), list(nothing.entries()), nothing.boolean(default=True)) == ([], [], True)


@pytest.mark.parametrize("name", ["a", "A9_", "_x", "tx_datetime", "raceId", "x" * NAME_LENGTH_MAX])
def test_names(name: str) -> None:
    """Letters, digits and underscores make a name."""
    assert checked_name("here", name) == name


@pytest.mark.parametrize("name", ["", "9a", "a-b", "a b", "a.b", "a->b", "a+b", "é", "__op", None, 7, "x" * 120])
def test_no_names(name: object) -> None:
    """What could not stand in an edge type, or is ours (a leading double underscore), is no name."""
    with pytest.raises(SchemaError, match=r"^here: expected a name of letters"):
        checked_name("here", name)


def test_names_are_made_to_fit() -> None:
    """What a schema can hold stays; else underscores, unless that name is taken; what has no letter stays."""
    assert fitting_names(["order_id", "Order Date", "2B", "a.b--c", "名前"]) == [
        "order_id",
        "Order_Date",
        "_2B",
        "a_b_c",
        "名前",
    ]
    assert fitting_names(["a b", "a_b"]) == ["a b", "a_b"]
