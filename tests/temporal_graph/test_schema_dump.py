"""Schemas written as YAML."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from temporal_graph.schema_dump import dump_schema
from temporal_graph.schema_parse import parse_schema
from temporal_graph.schema_types import (
    Column,
    ColumnKind,
    KeyColumn,
    KeyType,
    KnownTime,
    Link,
    Retention,
    Schema,
    Source,
    Table,
)

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: name not in ("default", "links"))
DURATIONS = st.integers(0, 10**15)


@st.composite
def tables(draw: st.DrawFn, name: str, parents: list[Table]) -> Table:
    """A table with any key, clocks, columns and bounds, and links to some of the parents."""
    names = draw(st.lists(NAMES, min_size=12, max_size=12, unique=True))
    take = iter(names)
    key = tuple(KeyColumn(next(take), draw(st.sampled_from(KeyType))) for _ in range(draw(st.integers(0, 2))))
    links = []
    for parent in draw(st.lists(st.sampled_from(parents), max_size=2)) if parents else []:
        if parent.primary_key:
            columns = tuple(next(take) for _ in parent.primary_key)
            key_names = tuple(part.name for part in parent.primary_key)
            links.append(Link("+".join(columns), columns, name, parent.name, key_names, draw(st.booleans())))
    clock = draw(st.none() | st.just(next(take)))
    columns = []
    for column, kind in zip(take, draw(st.lists(st.sampled_from(ColumnKind), max_size=3)), strict=False):
        dim = draw(st.integers(1, 65_536)) if kind is ColumnKind.EMBEDDING else 0
        private = kind in (ColumnKind.TEXT, ColumnKind.CATEGORICAL) and draw(st.booleans())
        outcome = kind is ColumnKind.NUMERICAL and not any(c.outcome for c in columns) and draw(st.booleans())
        columns.append(Column(column, kind, dim, outcome, private))
    if clock is None:
        return Table(name, key, columns=tuple(columns), links=tuple(links))
    return Table(
        name,
        key,
        time_column=clock,
        known_time=draw(st.sampled_from([KnownTime(), KnownTime("broker"), KnownTime("column", "known__at")])),
        lateness_us=draw(st.none() | DURATIONS),
        future_us=draw(DURATIONS),
        columns=tuple(columns),
        links=tuple(links),
        retention=Retention(draw(st.none() | DURATIONS), draw(st.none() | st.integers(1, 2**31 - 1))),
        storage=draw(st.sampled_from(["memory", "disk"])) if columns else "memory",
    )


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """Up to four tables, each linked to earlier ones."""
    drawn: list[Table] = []
    for name in draw(st.lists(NAMES, min_size=1, max_size=4, unique=True)):
        drawn.append(draw(tables(name, drawn)))
    sources = [
        Source(f"topic.{t.name}", t.name, "json", "upsert", *(["x", "y"] if t.time_column else [])) for t in drawn
    ]
    return Schema(draw(NAMES), tuple(drawn), tuple(sources))


@UNHURRIED
@given(schemas())
def test_round_trip(schema: Schema) -> None:
    """Any schema, written and parsed again, is equal and has the same fingerprint."""
    again = parse_schema(dump_schema(schema))
    assert again == schema
    assert again.fingerprint() == schema.fingerprint()


def test_privacy_round_trip() -> None:
    """A schema whose privacy has spread is written with it, and read back the same."""
    text = """
version: 1
name: x
tables:
  a: {primary_key: {id: integer}}
  b:
    links: {a_id: a}
    private: [a_id]
"""
    schema = parse_schema(text)
    assert "primary_key: {id: string}" in dump_schema(schema)
    assert parse_schema(dump_schema(schema)) == schema


def test_defaults_are_left_out() -> None:
    """What is at its default is not written, so a draft reads as a person would write it."""
    text = dump_schema(
        parse_schema("version: 1\nname: x\ntables:\n  t:\n    time_column: at\n    columns: {a: text}\n")
    )
    assert text == "version: 1\nname: x\ntables:\n  t:\n    time_column: at\n    columns:\n      a: text\n"
