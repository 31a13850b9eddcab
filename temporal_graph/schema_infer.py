"""A first schema guessed from Parquet, CSV and JSONL files, for a person to correct.

    files ─► profiles ─► primary keys ─► links ─► parents without a file ─► clocks and kinds ─► Schema

The guesses rest on names and values: `customer_id` in payments is a link to the table whose key has this name, and
where no file has it, to a table `customers` that is known by its keys alone. Texts that are keys of another table are
links whatever they are called; integers are not, as small ones are keys of every table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from temporal_graph.errors import SchemaError
from temporal_graph.schema_draft import commented
from temporal_graph.schema_dump import dump_schema
from temporal_graph.schema_parse import parse_schema
from temporal_graph.schema_profile import ColumnProfile, TableProfile, holds_years, profile_file
from temporal_graph.schema_types import Column, ColumnKind, KeyColumn, KeyType, Link, Schema, Table

CATEGORIES_MAX = 10
"""Integers with at most so many distinct values are categories."""
TEXT_LENGTH_MIN = 20
"""Texts that are mostly distinct and on average this long are free text; shorter ones are names and codes."""
OVERLAP_MIN = 0.2
"""The share of a link's distinct values that must be keys of its parent where the names are equal: a parent's file may
hold some of its rows only."""
CONTAINED_MIN = 0.95
"""The same where only the ends of the names agree: home_team_id and team_id; or texts are keys of another name."""
KEY_NAME_MIN, KEY_WORD_MIN = 4, 6
"""Names of keys shorter than this say nothing at the end of another: Id; and in capitals no word begins visibly."""
TEXT_VALUES_MIN = 3
"""Fewer different texts may be keys of another table by chance."""

_KEY_NAME = re.compile(r"(?P<stem>[A-Za-z0-9_]*?)(?:_(?:id|key|ID|KEY)|(?<=[a-z0-9])(?:Id|ID|Key))")
_CODE_NAME = re.compile(
    r"(?i:.*(?:^|_)(?:id|key|code|type|status|class|category|zip|postcode))|.*[a-z](?:Id|Code|Type)"
)
_SELF_NAME = re.compile(
    r"(?i).*(?:parent|manager|reports?_?to|supervisor|boss|superior|predecessor|reply_?to)(?:_?id)?"
)
_TIME_HINTS = ("event_time", "created", "timestamp", "datetime", "time", "date", "_at")
_TIME_FIRST = 2
"""Of the hints, so many name when a row began: they count for more than how finely it is told."""
_TIME_LATE = re.compile(r"(?i)end|updated|modified")
_TIME_OF_STEP = re.compile(
    r"(?i)ship|deliver|arriv|return|refund|cancel|paid|settle|clos|resol|complet|finish|approv|process|confirm|answer"
)
"""Names of what happens to a row after it began: such a clock is no finer one of the same moment."""
_TIME_NEVER = re.compile(r"(?i)birth|dob|expir|until|due|deleted")

_KINDS = {
    "number": ColumnKind.NUMERICAL,
    "boolean": ColumnKind.BOOLEAN,
    "timestamp": ColumnKind.TIMESTAMP,
    "texts": ColumnKind.MULTICATEGORICAL,
    "vector": ColumnKind.EMBEDDING,
}


def infer_schema(files: Sequence[Path], *, name: str = "inferred") -> Schema:
    """Draft a schema from files, without comments: see `draft_schema`."""
    return draft_schema(files, name=name)[0]


def draft_schema(files: Sequence[Path], *, name: str = "inferred") -> tuple[Schema, str]:
    """Draft a schema from Parquet, CSV and JSONL files: one table for each file, and for keys that no file owns.

    Guessed are primary keys (a column unique over the rows read), time columns (of a timestamp type, ISO 8601 text or
    integer epochs), links (named as another table's key and holding its values) and column kinds. Outcomes, privacy,
    known times, bounds and sources are for a person to add. Returns the schema, and its YAML with comments that say
    what to look at.

    Raises:
        OSError: a file cannot be read.
        SchemaError: a file of another format, two files of one name, or names and types that a schema cannot hold.
    """
    profiles = [profile_file(Path(file)) for file in files]
    names = [profile.name for profile in profiles]
    for repeated in (each for each in names if names.count(each) > 1):
        raise SchemaError(
            f"tables.{repeated}", "one file for each table, which is named by its file up to the first dot", repeated
        )
    keys = {profile.name: _primary_key(profile) for profile in profiles}
    owners = _owners(profiles, keys)
    links = {profile.name: _links(profile, keys[profile.name], owners) for profile in profiles}
    for profile in profiles:
        links[profile.name] |= _links_by_value(profile, profiles, keys, links[profile.name])
    implied = _implied_parents(profiles, keys, links)
    tables = [Table(name=parent, primary_key=(key,)) for parent, key in implied.items()]
    tables += [_table(profile, keys[profile.name], links[profile.name]) for profile in profiles]
    schema = parse_schema(dump_schema(Schema(name, tuple(tables))))
    return schema, commented(schema, profiles)


def _primary_key(profile: TableProfile) -> ColumnProfile | None:
    """The unique, complete integer or text column that its name, or its place at the front, makes a key."""

    def rank(column: ColumnProfile) -> int:
        if column.name.lower() in ("id", "key"):
            return 0
        stem = _stem(column.name)
        if stem is not None:
            return 1 if _names(profile.name, stem) else 2
        return 3 if column is profile.columns[0] and not _looks_like_time(column.name) else 4

    unique = [
        column
        for column in profile.columns
        if column.family in ("integer", "text")
        and column.null_count == 0
        and column.distinct_count == profile.row_count > 0
    ]
    best = min(unique, key=rank, default=None)
    return best if best is not None and rank(best) < 4 else None


def _owners(
    profiles: Sequence[TableProfile], keys: Mapping[str, ColumnProfile | None]
) -> dict[str, tuple[str, ColumnProfile]]:
    """By the name of a key: the table it belongs to, the one named like it, else the one with the most rows.

    Of equally many that which names more other things: news of a row bring its key and what became of it.
    """
    owners: dict[str, tuple[str, ColumnProfile]] = {}
    best: dict[str, tuple[bool, int, int]] = {}
    for profile in profiles:
        key = keys[profile.name]
        if key is None:
            continue
        name = key.name if key.name.lower() not in ("id", "key") else f"{_singular(profile.name)}_{key.name.lower()}"
        things = sum(_stem(column.name) is not None for column in profile.columns)
        claim = (_names(profile.name, _stem(name) or name), profile.row_count, things)
        if name not in owners or claim > best[name]:
            owners[name], best[name] = (profile.name, key), claim
    return owners


def _links(
    profile: TableProfile, key: ColumnProfile | None, owners: Mapping[str, tuple[str, ColumnProfile]]
) -> dict[str, tuple[str, ColumnProfile]]:
    """By column: the parent table and its key."""
    links = {}
    for column in profile.columns:
        for name, (parent, parent_key) in owners.items():
            same = column.name == name
            if not same and not _ends_with(column.name, name):
                continue
            if column.family != parent_key.family or (parent == profile.name and column is key):
                continue
            if _overlap(column, parent_key) >= (OVERLAP_MIN if same else CONTAINED_MIN):
                links[column.name] = (parent, parent_key)
                break
    return links


def _links_by_value(
    profile: TableProfile,
    profiles: Sequence[TableProfile],
    keys: Mapping[str, ColumnProfile | None],
    linked: Mapping[str, object],
) -> dict[str, tuple[str, ColumnProfile]]:
    """By column: texts that are keys of another table, and a manager or parent among the table's own keys."""
    found = {}
    for column in profile.columns:
        if column.name in linked or column is keys[profile.name] or column.distinct_count == 0:
            continue
        candidates = []
        for parent in profiles:
            key, own = keys[parent.name], parent is profile
            if key is None or key.family != column.family:
                continue
            words = column.family == "text" and column.distinct_count >= TEXT_VALUES_MIN
            if words or (own and _SELF_NAME.fullmatch(column.name)):
                share = _overlap(column, key)
                if share >= CONTAINED_MIN:
                    candidates.append((share, -key.distinct_count, parent.name, key))
        if candidates:
            _, _, parent_name, key = max(candidates, key=lambda each: each[:2])
            found[column.name] = (parent_name, key)
    return found


def _ends_with(column: str, key: str) -> bool:
    """Say whether a column is named by a key and what stands before it: home_team_id, ShipCityId, REPEMPLOYEENUMBER."""
    before = column[: -len(key)]
    if not before or column[-len(key) :].lower() != key.lower() or len(key) < KEY_NAME_MIN:
        return column.endswith(f"_{key}")
    joined = column[len(before)].isupper() and before[-1].islower()
    return joined or before[-1] == "_" or (column.isupper() and len(key) >= KEY_WORD_MIN)


def _overlap(child: ColumnProfile, parent: ColumnProfile) -> float:
    import pyarrow.compute as pc

    if child.distinct_count == 0:
        return 0.0
    return float(pc.mean(pc.is_in(child.distinct, value_set=parent.distinct)).as_py())


def _implied_parents(
    profiles: Sequence[TableProfile],
    keys: Mapping[str, ColumnProfile | None],
    links: dict[str, dict[str, tuple[str, ColumnProfile]]],
) -> dict[str, KeyColumn]:
    """Add links to parents without a file: columns named as a key, with values that repeat or stand in two files."""
    places: dict[str, list[tuple[TableProfile, ColumnProfile]]] = {}
    for profile in profiles:
        for column in profile.columns:
            free = column is not keys[profile.name] and column.name not in links[profile.name]
            free = free and not holds_years(column)  # a time, and no thing that rows have in common
            if free and _stem(column.name) and column.family in ("integer", "text") and column.distinct_count > 1:
                places.setdefault(column.name, []).append((profile, column))
    taken = {profile.name.lower() for profile in profiles}
    implied: dict[str, KeyColumn] = {}
    for name, holders in places.items():
        parent = _plural(_stem(name) or name)
        repeats = any(column.distinct_count < 0.9 * profile.row_count for profile, column in holders)
        one_family = len({column.family for _, column in holders}) == 1
        if parent.lower() in taken or not one_family or not (repeats or len(holders) > 1):
            continue
        taken.add(parent.lower())
        implied[parent] = KeyColumn(name, _key_type(holders[0][1]))
        for profile, column in holders:
            links[profile.name][name] = (parent, column)
    return implied


def _table(profile: TableProfile, key: ColumnProfile | None, links: Mapping[str, tuple[str, ColumnProfile]]) -> Table:
    clock = _time_column(profile.columns)
    return Table(
        name=profile.name,
        primary_key=() if key is None else (KeyColumn(key.name, _key_type(key)),),
        time_column=clock,
        columns=tuple(
            _column(column, profile.row_count)
            for column in profile.columns
            if column is not key and column.name != clock and column.name not in links
        ),
        links=tuple(
            Link(column, (column,), profile.name, parent, (parent_key.name,))
            for column, (parent, parent_key) in links.items()
        ),
    )


def _time_column(columns: Iterable[ColumnProfile]) -> str | None:
    """The time a row happens; where there is none, the complete one by which its columns are what they are."""
    times = [column for column in columns if column.family == "timestamp" and not _TIME_NEVER.search(column.name)]
    early = [column for column in times if not _TIME_LATE.search(column.name)]
    late = [column for column in times if not column.null_count]

    def rank(column: ColumnProfile) -> tuple[int, bool, bool, int]:
        name = column.name.lower()
        hint = next((place for place, hint in enumerate(_TIME_HINTS) if hint in name), len(_TIME_HINTS))
        step = _TIME_OF_STEP.search(name) is not None
        return min(hint, _TIME_FIRST), hint == len(_TIME_HINTS) or step, column.days_only, hint

    found = min(early or late, key=rank, default=None)
    return None if found is None else found.name


def _column(column: ColumnProfile, row_count: int) -> Column:
    kind = _KINDS.get(column.family)
    if kind is not None:
        return Column(column.name, kind, column.dim)
    if column.family == "integer":
        category = column.distinct_count <= CATEGORIES_MAX < row_count or _CODE_NAME.fullmatch(column.name)
        return Column(column.name, ColumnKind.CATEGORICAL if category else ColumnKind.NUMERICAL)
    known_count = row_count - column.null_count
    prose = column.distinct_count > 0.5 * known_count and column.length_mean >= TEXT_LENGTH_MIN
    return Column(column.name, ColumnKind.TEXT if prose and not column.words_only else ColumnKind.CATEGORICAL)


def _key_type(column: ColumnProfile) -> KeyType:
    return KeyType.INTEGER if column.family == "integer" else KeyType.STRING


def _looks_like_time(name: str) -> bool:
    return any(hint in name.lower() for hint in _TIME_HINTS)


def _stem(column: str) -> str | None:
    """The thing a key's name names: customer of customer_id, driver of driverId; None if it is no key's name."""
    match = _KEY_NAME.fullmatch(column)
    return match["stem"] if match and match["stem"] else None


def _names(table: str, stem: str) -> bool:
    """Say whether a table is named by a thing: customers, and customer, by customer."""
    plain = table.lower().replace("_", "")
    thing = stem.lower().replace("_", "")
    return plain in (thing, _plural(thing))


def _plural(noun: str) -> str:
    if re.search(r"[^aeiou]y$", noun):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if re.search(r"(?:s|x|z|ch|sh)$", noun) else f"{noun}s"


def _singular(noun: str) -> str:
    if noun.endswith("ies"):
        return f"{noun[:-3]}y"
    return noun[:-2] if re.search(r"(?:s|x|z|ch|sh)es$", noun) else noun.removesuffix("s")
