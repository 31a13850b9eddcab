"""What a person sees of a session: each list beside the one before it, and at the end what every click changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from nowgraph.client import RankedItem, RankedItems
from nowgraph.demo_rank.session import NEW_NAME, Change, Step

_NAME_LENGTH = 32
# Room for the title on one line.
_WIDTH_MIN = 72


def name_of(key: object, names: Mapping[str, str]) -> str:
    """A product's name, cut to a column's width."""
    name = names.get(str(key), str(key)).strip()
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"


def step_table(step: Step, number: int, names: Mapping[str, str]) -> Table:
    """The list before a click beside the one after it; newcomers stand out, arrows say who moved how far."""
    first = step.before is None
    title = "Nobody knows the visitor yet: the popular and the new"
    if step.clicked is not None:
        waited_ms = step.publish_ms + step.list_ms
        title = f"Click {number}: {name_of(step.clicked, names)}  ({waited_ms:.0f} ms to the next list)"
    if step.listed is not None:
        title = "A product is listed, and others buy it after the one clicked last"
        names = {**names, step.listed: NEW_NAME}
    table = Table(title=title, title_justify="left", min_width=_WIDTH_MIN)
    table.add_column("", justify="right")
    for column in ("the list", "why") if first else ("before", "after", "", "why"):
        table.add_column(column, no_wrap=True)
    before = _items(step.before)
    for place in range(max(len(step.after.items), len(before))):
        change = step.changes[place] if place < len(step.changes) else None
        came = change is not None and change.came and not first
        name = Text(name_of(change.item.key, names) if change else "", style="bold green" if came else "")
        why = Text(", ".join(change.item.sources) if change else "", style="dim")
        if first:
            table.add_row(str(place + 1), name, why)
            continue
        stays = place < len(before) and before[place].key in step.after.keys
        was = Text(name_of(before[place].key, names) if place < len(before) else "", style="" if stays else "dim")
        table.add_row(str(place + 1), was, name, _mark(change), why)
    return table


def click_rows(steps: Sequence[Step], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row for each click: what it changed, and how soon."""
    return [
        {
            "click": number,
            "on": name_of(step.clicked, names),
            "came": sum(change.came for change in step.changes),
            "moved": sum(bool(change.moved) for change in step.changes),
            "co-visited": sum("co_visit" in change.item.sources for change in step.changes),
            "history": step.after.history_count,
            "publish ms": step.publish_ms,
            "list ms": step.list_ms,
            "changed": step.changed,
        }
        for number, step in enumerate(clicks_of(steps), start=1)
    ]


def listed_text(steps: Sequence[Step]) -> str:
    """Where the product that was listed during the session ended up."""
    asked = [step for step in steps if step.listed is not None]
    if not asked:
        return "No product was listed."
    step = asked[-1]
    place, ranked = step.place_of_listed, step.after.candidate_count
    where = f"not among the {ranked} that were ranked" if place is None else f"at place {place} of {ranked}"
    return f"The product listed a moment ago, which no training has seen, is {where}."


def clicks_of(steps: Sequence[Step]) -> list[Step]:
    """The steps that a click led to."""
    return [step for step in steps if step.clicked is not None]


def _items(found: RankedItems | None) -> tuple[RankedItem, ...]:
    return () if found is None else found.items


def _mark(change: Change | None) -> Text:
    if change is None:
        return Text("")
    if change.came:
        return Text("new", style="bold green")
    if change.moved:
        return Text(
            f"{'↑' if change.moved > 0 else '↓'}{abs(change.moved)}", style="cyan" if change.moved > 0 else "dim"
        )
    return Text("=", style="dim")
