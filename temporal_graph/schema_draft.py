"""What a person should look at in a drafted schema, as comments where it stands.

    TableProfiles + Schema ─► notes ─► YAML with comments

A draft is right about what stands in the files. What a row knew when it happened does not stand there, and a model
that sees more than that looks good until it is used: most notes are about this.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence

from temporal_graph.schema_dump import dump_schema
from temporal_graph.schema_profile import ColumnProfile, TableProfile, holds_years, is_time_name
from temporal_graph.schema_types import ColumnKind, Schema, Table

Place = tuple[str, ...]
"""A table, or a table and one of its columns."""

COMMENT_WIDTH = 118
HEAD = """\
A draft from {files}, for a person to correct. Three things no file says:
- When a row happened (time_column). It is seen from then on, with all its columns; without a time it is seen always.
- What is known only later: an outcome, a delay, the status at the end. In its row from the beginning, such a column
  gives the answer away. Put it into a file of its own, with the key and when it became known, and name that file as a
  source of the table:
    sources:
      - {{topic: FILE, table: TABLE, format: json, operation: upsert, event_time: WHEN, known_time: WHEN}}
- What is asked: nowgraph query "PREDICT ..." --schema THIS_FILE says how a question is understood (docs/QUERY.md)."""

_PERSONAL = re.compile(
    r"(?i).*(?:e_?mail|phone|mobile|(?:^|_)fax|passport|iban|(?:first|last|given|sur|family|full|^[fl])_?name|street|"
    r"address(?:_?line)?)_?\d*"
)
_ROLE_NAME = re.compile(
    r".*(?:_(?:by|to|of|from|no|num|number|ref)|[a-z](?:By|To|Of|From|No|Ref))|.*(?:[a-z_])(?:id|Id|ID)"
)
_LOCAL_DATE = re.compile(r"\d{1,2}[./-]\d{1,2}[./-](?:\d{2}|\d{4})(?:\D.*)?|\d{4}[./]\d{1,2}[./]\d{1,2}(?:\D.*)?")
THINGS_MIN, ROWS_OF_A_THING = 20, 3
"""Texts of so many values that come so often may be customers or machines, each with a history of its own."""
_KNOWN_AHEAD = re.compile(r"(?i).*(?:birth|dob|due|until|expir|promis|sched|plan)")
_STATE_NAME = re.compile(r"(?i).*(?:status|outcome|result)")
_NAMED_MAX = 2


def commented(schema: Schema, profiles: Sequence[TableProfile]) -> str:
    """Return the schema as YAML, with what a person should look at as comments."""
    notes = notes_of(schema, profiles)
    files = f"{len(profiles)} files" if len(profiles) != 1 else "a file"
    lines = [f"# {line}" for line in HEAD.format(files=files).splitlines()]
    table = ""
    for line in dump_schema(schema).splitlines():
        if match := re.match(r"  (\w+):", line):
            table = match[1]
            wrapped = textwrap.wrap(notes.get((table,), ""), COMMENT_WIDTH - 4)
            lines += [f"  # {part}" for part in wrapped]
        match = re.match(r"      (\w+):", line)
        note = notes.get((table, match[1])) if match else None
        lines.append(line if note is None else f"{line}  # {note}")
    return "\n".join(lines) + "\n"


def notes_of(schema: Schema, profiles: Sequence[TableProfile]) -> dict[Place, str]:
    """By place: what a person should look at there."""
    by_name = {profile.name: profile for profile in profiles}
    notes: dict[Place, str] = {}
    for table in schema.tables:
        profile = by_name.get(table.name)
        if profile is None:
            notes[table.name,] = _of_parent_without_file(table, schema, by_name)
            continue
        notes[table.name,] = " ".join(_of_table(table, schema, profile))
        links = {link.columns[0] for link in table.links}
        for column in profile.columns:
            linked = column.name in links
            parts = _of_column(column, table, profile) if not linked else []
            if not linked and column.family == "integer" and _ROLE_NAME.fullmatch(column.name):
                parts += _held_by(column, by_name, schema, apart=table.name if _is_key(table, column) else None)
            if column.written != column.name:
                parts.append(f"{column.written!r} in the file")
            if parts:
                notes[table.name, column.name] = "; ".join(parts)
    return {place: note for place, note in notes.items() if note}


def _of_table(table: Table, schema: Schema, profile: TableProfile) -> list[str]:
    found = []
    twin = _twin_of(table)
    if twin is not None:
        when = table.time_column or "WHEN"
        found.append(
            f"One row for each row of {twin}. If its columns are {twin}'s, known later: name them there, with this "
            f"table left out, and the file as a source: {{topic: {table.name}, table: {twin}, format: json, "
            f"operation: upsert, event_time: {when}, known_time: {when}}}."
        )
    elif table.time_column is None:
        timed = [link.parent for link in table.links if schema.table(link.parent).time_column is not None]
        years = next((column.name for column in profile.columns if holds_years(column)), None)
        if years is not None:
            found.append(
                f"LOOK: no time, so its rows are seen always. {years} holds years: as a time_column, write the day "
                f"they are known, such as 2024-12-31."
            )
        elif timed:
            clock = schema.table(timed[0]).time_column
            found.append(
                f"LOOK: no time, so its rows are seen always, also before the row of {timed[0]} they belong to. "
                f"Copy its {clock} into this file, as time_column."
            )
        else:
            found.append("No time: its rows are seen always.")
    gaps = next((column.null_count for column in profile.columns if column.name == table.time_column), 0)
    if gaps:
        found.append(f"{gaps:,} of {profile.row_count:,} rows have no {table.time_column}: they are not loaded.")
    if not table.primary_key:
        found += _of_rows_without_key(profile)
    if profile.left_out:
        found.append(f"Left out: {', '.join(f'{name} ({kind})' for name, kind in profile.left_out)}.")
    return found


def _twin_of(table: Table) -> str | None:
    """The table whose keys are this table's keys, too."""
    key = tuple(part.name for part in table.primary_key)
    return next((link.parent for link in table.links if link.columns == key and link.parent != table.name), None)


def _of_rows_without_key(profile: TableProfile) -> list[str]:
    rows, together = profile.row_count, profile.unique_together
    whole = [each for each in profile.columns if not each.null_count and each.family in ("integer", "text")]
    unique = [each for each in whole if each.distinct_count == rows > 0]
    name = next((each.name for each in unique if each.family == "text"), None)
    key = ""
    if name is not None:
        key = f" {name} is unique; as primary_key: {_key_text(profile, (name,))}."
    elif together:
        key = f" Unique together: {', '.join(together)}; as primary_key: {_key_text(profile, together)}."
    alone = "No column is named as its key" if unique else "No column is unique"
    found = [f"{alone}: its rows have no key, and are neither updated nor linked to.{key}"]
    first = profile.columns[0]
    if 0.7 * rows < first.distinct_count < rows and not first.null_count:
        found.append(
            f"{first.name} repeats in {rows - first.distinct_count:,} of {rows:,} rows; as the key, the last of equal "
            f"ones would count."
        )
    return found


def _key_text(profile: TableProfile, names: Sequence[str]) -> str:
    kinds = {column.name: "integer" if column.family == "integer" else "string" for column in profile.columns}
    return "{" + ", ".join(f"{name}: {kinds[name]}" for name in names) + "}"


def _of_parent_without_file(table: Table, schema: Schema, profiles: Mapping[str, TableProfile]) -> str:
    key = table.primary_key[0].name
    found = ["No file has it: known by its keys alone."]
    for child in schema.tables:
        for link in child.links:
            if link.parent == table.name and child.name in profiles:
                column = next(c for c in profiles[child.name].columns if c.name == link.columns[0])
                held = _held_by(column, profiles, schema)
                return " ".join([*found, *(f"{child.name}.{key}: {part}." for part in held)])
    return found[0]


def _of_column(column: ColumnProfile, table: Table, profile: TableProfile) -> list[str]:
    if _is_key(table, column) or column.name == table.time_column:
        return []
    if profile.row_count and column.null_count == profile.row_count:
        return ["no value in the rows that were read"]
    found = []
    if column.distinct is not None and column.distinct_count == 1 and not column.null_count:
        found.append("one value only")
    clock = table.time_column
    if column.family == "timestamp" and clock is not None and not _KNOWN_AHEAD.match(column.name):
        found.append(f"known by {clock}? Else see above")
    if column.family in ("text", "integer", "boolean") and clock is not None and _STATE_NAME.fullmatch(column.name):
        found.append(f"as it was at {clock}, or as it ended? Then see above")
    if column.family in ("text", "integer") and _foreign_date(column):
        found.append("dates? Write them as 2024-01-31, which makes it a timestamp")
    known = profile.row_count - column.null_count
    if column.family == "text" and table.time_column and THINGS_MIN <= column.distinct_count <= known / ROWS_OF_A_THING:
        found.append(f"things to ask about? A link of {column.name} to a table of that key gives each its history")
    if column.family == "text" and _PERSONAL.fullmatch(column.name):
        found.append(f"personal? {{kind: {_kind(table, column)}, private: true}} keeps a hash of it")
    return found


def _is_key(table: Table, column: ColumnProfile) -> bool:
    return any(part.name == column.name for part in table.primary_key)


def _kind(table: Table, column: ColumnProfile) -> str:
    kind = next((each.kind for each in table.columns if each.name == column.name), ColumnKind.CATEGORICAL)
    return kind.value


def _foreign_date(column: ColumnProfile) -> bool:
    """Say whether the first values look like dates of another form than ISO 8601: 31.1.2024, or the number 20240131."""
    few = [] if column.distinct is None else column.distinct.slice(0, 20).to_pylist()
    if column.family == "integer":
        dates = [
            19_000_101 <= value <= 21_001_231 and 1 <= value // 100 % 100 <= 12 and 1 <= value % 100 <= 31
            for value in few
        ]
        return bool(few) and is_time_name(column.name) and all(dates)
    return bool(few) and all(_LOCAL_DATE.fullmatch(str(value)) for value in few)


def _held_by(
    column: ColumnProfile, profiles: Mapping[str, TableProfile], schema: Schema, *, apart: str | None = None
) -> list[str]:
    """The tables whose keys hold all values of a column of integers: few of them are worth a look."""
    import pyarrow.compute as pc

    found = []
    for table in schema.tables:
        profile = profiles.get(table.name)
        if profile is None or len(table.primary_key) != 1 or table.name == apart or _twin_of(table) is not None:
            continue
        key = next(each for each in profile.columns if each.name == table.primary_key[0].name)
        same = key.family == column.family and key.distinct is not None and column.distinct_count > 1
        if same and pc.all(pc.is_in(column.distinct, value_set=key.distinct)).as_py():
            found.append(table.name)
    if not 0 < len(found) <= _NAMED_MAX:
        return []
    return [f"a link? All its values are keys of {' and of '.join(found)}"]
