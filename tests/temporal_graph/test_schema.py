"""The schema from file to fingerprint, as the rest of the code imports it."""

from __future__ import annotations

from pathlib import Path

import pytest

from temporal_graph import schema as module
from temporal_graph.schema import dump_schema, load_schema, parse_schema

TEXT = """
version: 1
name: shop
tables:
  customers: {primary_key: {customer_id: integer}}
  orders:
    primary_key: {order_id: integer}
    time_column: at
    links: {customer_id: customers}
"""


def test_file_and_text_agree(tmp_path: Path) -> None:
    """A schema read from a file is the schema of its text."""
    path = tmp_path / "schema.yaml"
    path.write_text(TEXT, encoding="utf-8")
    assert load_schema(path) == load_schema(str(path)) == parse_schema(TEXT)


def test_what_is_written_is_what_was_read() -> None:
    """Parsing what was dumped gives an equal schema with the same fingerprint."""
    schema = parse_schema(TEXT)
    assert parse_schema(dump_schema(schema)) == schema
    assert parse_schema(dump_schema(schema)).fingerprint() == schema.fingerprint()


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is an error of the file system, not of the schema."""
    with pytest.raises(FileNotFoundError):
        load_schema(tmp_path / "none.yaml")


def test_everything_promised_is_here() -> None:
    """Each name in `__all__` exists, so one import line serves every user of the schema."""
    assert all(hasattr(module, name) for name in module.__all__)
