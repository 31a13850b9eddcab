"""What the business wants of a list, whatever the model says: pure functions from ranked items to shown ones.

    ranked items ─► allow ─► deny ─► diversity ─► caps and the share of new items ─► k items, and what each rule did

A list under way is a sequence of indices into a `Pool`. Only diversity reorders; every other rule leaves items out or
lets others in, so that scores go on falling.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from temporal_graph.view import Key

Categories = frozenset[str]
Order = tuple[int, ...]
"""Indices of a pool, the first place first."""

# What a product of two decimal fractions may be above an integer without meaning the next one.
_ROUNDING = 1e-9


class Rule(StrEnum):
    """The rules, in the order in which they are applied; caps and the share of new items are kept together."""

    ALLOW = "allow"
    DENY = "deny"
    DIVERSITY = "diversity"
    CAP = "cap"
    NEW_SHARE = "new_share"


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `limit` items of any one category of `column`, or of the category `value` alone."""

    column: str
    limit: int
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Diversity:
    """How much variety weighs against relevance, 0 to 1, and the column that says what is alike."""

    weight: float
    column: str


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one request; what is None, empty or 0 does not apply."""

    allow: frozenset[Key] | None = None
    deny: frozenset[Key] = frozenset()
    diversity: Diversity | None = None
    caps: tuple[Cap, ...] = ()
    new_share_min: float = 0.0

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns whose categories the rules need, each once."""
        names = [cap.column for cap in self.caps]
        if self.diversity is not None:
            names.append(self.diversity.column)
        return tuple(dict.fromkeys(names))

    def __bool__(self) -> bool:
        """Whether any rule applies."""
        return bool(self.allow is not None or self.deny or self.diversity or self.caps or self.new_share_min)


@dataclass(frozen=True, slots=True)
class Pool:
    """What was ranked, the best first: n keys, scores and flags; of each column that a rule names n categories."""

    key: Sequence[Key]
    score: Sequence[float]
    is_new: Sequence[bool]
    categories: Mapping[str, Sequence[Categories]]


@dataclass(frozen=True, slots=True)
class Move:
    """An item that changed places with others; places count from 1."""

    item: int
    from_position: int
    to_position: int


@dataclass(frozen=True, slots=True)
class Effect:
    """What a rule did to the first k items: indices of those that went, those that came, and those that moved.

    `lacking` says how many new items the share of new items asks for beyond those there were.
    """

    rule: Rule
    column: str = ""
    removed: tuple[int, ...] = ()
    added: tuple[int, ...] = ()
    moved: tuple[Move, ...] = ()
    lacking: int = 0


def apply_rules(pool: Pool, rules: Rules, k: int) -> tuple[Order, tuple[Effect, ...]]:
    """The indices of at most k items to show, the first place first, and one effect for each rule that applies."""
    order: Order = tuple(range(len(pool.key)))
    effects: list[Effect] = []

    def then(after: Order, rule: Rule, column: str = "", lacking: int = 0) -> None:
        nonlocal order
        effects.append(effect_of(rule, order[:k], after[:k], column=column, lacking=lacking))
        order = after

    if rules.allow is not None:
        then(allowed(order, pool, rules.allow), Rule.ALLOW)
    if rules.deny:
        then(not_denied(order, pool, rules.deny), Rule.DENY)
    if rules.diversity is not None:
        # What is left out later is replaced from behind, so then the whole of it is put in order.
        places = len(order) if rules.caps or rules.new_share_min else k
        then(diversified(order, pool, rules.diversity, places), Rule.DIVERSITY, rules.diversity.column)
    whole = order
    for count, cap in enumerate(rules.caps, start=1):
        then(placed(whole, pool, k, rules.caps[:count], 0), Rule.CAP, cap.column)
    if rules.new_share_min:
        wanted = math.ceil(rules.new_share_min * k - _ROUNDING)
        shown = placed(whole, pool, k, rules.caps, wanted)
        lacking = wanted - sum(pool.is_new[item] for item in shown)
        then(shown, Rule.NEW_SHARE, lacking=max(0, lacking))
    return order[:k], tuple(effects)


def allowed(order: Sequence[int], pool: Pool, keys: frozenset[Key]) -> Order:
    """Leaves out every item whose key is not among `keys`."""
    return tuple(item for item in order if pool.key[item] in keys)


def not_denied(order: Sequence[int], pool: Pool, keys: frozenset[Key]) -> Order:
    """Leaves out every item whose key is among `keys`."""
    return tuple(item for item in order if pool.key[item] not in keys)


def diversified(order: Sequence[int], pool: Pool, diversity: Diversity, places: int) -> Order:
    """Fills the first places by maximal marginal relevance (Carbonell and Goldstein, 1998), the rest as it was.

    Each place goes to the item with the highest (1 - weight) * relevance - weight * likeness: relevance is the score
    between 0 and 1 within `order`, likeness the largest Jaccard index of its categories and those of an item placed
    before. Equal ones keep their order.
    """
    if not order:
        return ()
    member = _membership([pool.categories[diversity.column][item] for item in order])
    size = member.sum(axis=1)
    score = np.array([pool.score[item] for item in order], dtype=np.float64)
    span = score.max() - score.min()
    relevance = (score - score.min()) / span if span > 0 else np.ones(len(score))
    likeness = np.zeros(len(order))
    left = np.ones(len(order), dtype=np.bool_)
    chosen: list[int] = []
    for _ in range(min(places, len(order))):
        worth = (1.0 - diversity.weight) * relevance - diversity.weight * likeness
        place = int(np.argmax(np.where(left, worth, -np.inf)))
        chosen.append(place)
        left[place] = False
        common = member @ member[place]
        likeness = np.maximum(likeness, common / np.maximum(size + size[place] - common, 1.0))
    return tuple(order[place] for place in [*chosen, *np.flatnonzero(left).tolist()])


def placed(order: Sequence[int], pool: Pool, k: int, caps: Sequence[Cap], new_count: int) -> Order:
    """At most k items in their order: first `new_count` new ones where there are, then the best; no cap is exceeded.

    Where one column of one category an item is capped, no other choice has more new items (they form a matroid).
    """
    counts: Counter[tuple[int, str]] = Counter()
    chosen: set[int] = set()

    def take(items: Iterable[int], until: int) -> None:
        for item in items:
            if len(chosen) >= until:
                return
            if item in chosen:
                continue
            places = [
                (number, category)
                for number, cap in enumerate(caps)
                for category in pool.categories[cap.column][item]
                if cap.value is None or cap.value == category
            ]
            if all(counts[place] < caps[place[0]].limit for place in places):
                counts.update(places)
                chosen.add(item)

    take((item for item in order if pool.is_new[item]), min(new_count, k))
    take(order, k)
    return tuple(item for item in order if item in chosen)


def effect_of(rule: Rule, before: Order, after: Order, *, column: str = "", lacking: int = 0) -> Effect:
    """What became of the items shown `before`, now that those of `after` are."""
    were, are = set(before), set(after)
    stay_before = [item for item in before if item in are]
    stay_after = [item for item in after if item in were]
    moved = tuple(
        Move(item, before.index(item) + 1, after.index(item) + 1)
        for item, other in zip(stay_after, stay_before, strict=True)
        if item != other
    )
    return Effect(
        rule,
        column,
        removed=tuple(item for item in before if item not in are),
        added=tuple(item for item in after if item not in were),
        moved=moved,
        lacking=lacking,
    )


def _membership(categories: Sequence[Categories]) -> NDArray[np.float64]:
    """float64[n, distinct categories]: 1 where an item has a category."""
    columns = {name: index for index, name in enumerate(sorted(frozenset().union(*categories)))}
    member = np.zeros((len(categories), len(columns)))
    for row, names in enumerate(categories):
        member[row, [columns[name] for name in names]] = 1.0
    return member
