"""Errors say where, what was expected, what was found and what was probably meant."""

from __future__ import annotations

import pytest

from temporal_graph.errors import SchemaError, SchemaMismatchError, TemporalGraphError, describe, nearest_name


def test_one_root() -> None:
    """Whoever catches the package's root error catches all of them."""
    assert issubclass(SchemaError, TemporalGraphError)
    assert issubclass(SchemaMismatchError, TemporalGraphError)


def test_message_has_all_four() -> None:
    """The message names the key path, the expectation, what was found and the nearest valid name."""
    error = SchemaError("tables.t.links.c", "a table of the schema", "custmers", choices=["customers", "terminals"])
    assert str(error) == (
        "tables.t.links.c: expected a table of the schema, found 'custmers'; did you mean 'customers'?"
    )
    assert (error.path, error.expected, error.found) == ("tables.t.links.c", "a table of the schema", "custmers")
    assert error.nearest == "customers"


def test_no_far_fetched_advice() -> None:
    """Where nothing is similar, nothing is suggested; where only case differs, the right case is."""
    assert nearest_name("zebra", ["customers", "terminals"]) is None
    assert nearest_name("CUSTOMERS", ["Customers"]) == "Customers"
    assert nearest_name(7, ["7"]) is None
    assert str(SchemaError("", "a mapping", None)) == "schema: expected a mapping, found nothing"


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (None, "nothing"),
        ("x", "'x'"),
        (True, "the boolean true"),
        (7, "the integer 7"),
        (1.5, "the number 1.5"),
        ([1], "the list [1]"),
        ([], "an empty list"),
        ({"a": 1, "b": 2}, "a mapping of a, b"),
        ({}, "an empty mapping"),
    ],
)
def test_found_is_described_as_yaml(found: object, text: str) -> None:
    """A surprise of type reads as one: 7 the integer is not '7' the text."""
    assert describe(found) == text
