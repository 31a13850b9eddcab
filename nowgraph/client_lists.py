"""Between Python's values and the wire's, of lists: whom they are for and what they may hold, and the ranked items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypedDict

from nowgraph.client_values import (
    PRIORITIES,
    Degraded,
    FreshnessToken,
    GraphPosition,
    Key,
    Priority,
    Row,
    Time,
    degraded_from_wire,
    key_from_wire,
    key_to_wire,
    position_from_wire,
    row_event_to_wire,
    time_to_wire,
    token_to_wire,
)
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import ranked_list_pb2

FilterValue = str | float | bool


@dataclass(frozen=True, slots=True)
class ItemFilter:
    """Keeps items whose `column` holds one of the values (a single one may stand alone); `negate` keeps the others."""

    column: str
    values: FilterValue | Sequence[FilterValue]
    negate: bool = False


@dataclass(frozen=True, slots=True)
class Diversity:
    """How much variety weighs against relevance, 0 to 1, and the categorical column that says what is alike."""

    weight: float
    column: str


@dataclass(frozen=True, slots=True)
class CategoryCap:
    """At most `limit` items of any one category of `column`, or of the category `value` alone."""

    column: str
    limit: int
    value: str | None = None


@dataclass(frozen=True, slots=True)
class ListRules:
    """What the business wants: nothing but `allow`, nothing of `deny`, no category over its cap, a share of new items.

    An empty `allow` allows everything; `new_share_min` is a share of k, 0 to 1.
    """

    allow: Sequence[Key] = ()
    deny: Sequence[Key] = ()
    caps: Sequence[CategoryCap] = ()
    new_share_min: float = 0.0


class ListOptions(TypedDict, total=False):
    """What a list may be asked for beside its user; each is explained at `ListRequest`."""

    session: Sequence[Row]
    k: int
    candidates: Sequence[Key]
    exclude: Sequence[Key]
    filters: Sequence[ItemFilter]
    exclude_seen: bool | None
    diversity: Diversity | None
    rules: ListRules | None
    event_time: Time
    freshness_token: FreshnessToken | None
    request_id: str


@dataclass(frozen=True, slots=True)
class ListRequest:
    """One list to ask for.

    user: None is nobody, a key that the graph does not know is somebody without history. session: rows of the task's
    interaction table that need not be in the graph. k: 0 is as many as the task asks for. candidates: order these
    alone. exclude: never these. filters: all must hold. exclude_seen: leave out what the user had; None is as the task
    says. event_time: as of when, None is the server's clock. freshness_token: an event the list must know of.
    """

    user: Key = None
    session: Sequence[Row] = ()
    k: int = 0
    candidates: Sequence[Key] = ()
    exclude: Sequence[Key] = ()
    filters: Sequence[ItemFilter] = ()
    exclude_seen: bool | None = None
    diversity: Diversity | None = None
    rules: ListRules | None = None
    event_time: Time = None
    freshness_token: FreshnessToken | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class RankedItem:
    """An item of a list; places count from 1, `sources` say why it was ranked, such as "co_visit" or "popular"."""

    key: Key
    score: float
    position: int
    sources: tuple[str, ...]
    is_new: bool


@dataclass(frozen=True, slots=True)
class AppliedRule:
    """What a rule did to the list: keys it removed, keys it let in, and key -> (from, to) of those it moved.

    `rule` is "allow", "deny", "diversity", "cap" or "new_share"; `lacking` counts the new items there were not.
    """

    rule: str
    column: str
    removed: tuple[Key, ...]
    added: tuple[Key, ...]
    moved: tuple[tuple[Key, int, int], ...]
    lacking: int


@dataclass(frozen=True, slots=True)
class RankTiming:
    """Where the time went on the server, in microseconds."""

    queue_us: int
    freshness_wait_us: int
    retrieve_us: int
    forward_us: int
    rules_us: int
    total_us: int


@dataclass(frozen=True, slots=True)
class RankedItems:
    """A list, the best item first, and what it rests on.

    `fallback`: nothing is known of the user and there was no session. `newest_age_us`: cut-off minus the event time of
    the newest interaction, None without one.
    """

    request_id: str
    task: str
    items: tuple[RankedItem, ...]
    applied_rules: tuple[AppliedRule, ...]
    fallback: bool
    history_count: int
    session_count: int
    newest_age_us: int | None
    candidate_count: int
    model_version: str
    cutoff_time_us: int
    graph_position: GraphPosition
    timing: RankTiming
    degraded: Degraded | None = None

    @property
    def keys(self) -> tuple[Key, ...]:
        """The items' keys, the best first."""
        return tuple(item.key for item in self.items)


def list_to_wire(
    asked: ListRequest, *, task: str = "", tenant: str = "", priority: Priority | None = None
) -> service_pb2.RankRequest:
    """A request for one list. Raises TypeError for a value that the wire cannot hold."""
    diversity, token = asked.diversity, asked.freshness_token
    return service_pb2.RankRequest(
        task=task,
        tenant=tenant,
        priority=PRIORITIES[priority],
        request_id=asked.request_id,
        user=None if asked.user is None else key_to_wire(asked.user),
        session=[row_event_to_wire(row) for row in asked.session],
        k=asked.k,
        candidates=[key_to_wire(key) for key in asked.candidates],
        exclude=[key_to_wire(key) for key in asked.exclude],
        filters=[_filter(one) for one in asked.filters],
        exclude_seen=asked.exclude_seen,
        diversity=None
        if diversity is None
        else ranked_list_pb2.Diversity(weight=diversity.weight, column=diversity.column),
        rules=None if asked.rules is None else _rules(asked.rules),
        event_time_us=time_to_wire(asked.event_time),
        freshness_token=None if token is None else token_to_wire(token),
    )


def _filter(one: ItemFilter) -> ranked_list_pb2.ItemFilter:
    values: Sequence[FilterValue] = (one.values,) if isinstance(one.values, str | int | float | Real) else one.values
    return ranked_list_pb2.ItemFilter(
        column=one.column, values=[_filter_value(value) for value in values], negate=one.negate
    )


def _filter_value(value: object) -> ranked_list_pb2.FilterValue:
    if isinstance(value, bool):
        return ranked_list_pb2.FilterValue(boolean=value)
    if isinstance(value, Real):
        return ranked_list_pb2.FilterValue(number=float(value))
    if isinstance(value, str):
        return ranked_list_pb2.FilterValue(text=value)
    raise TypeError(f"a filter's value is a str, a number or a bool, found {type(value).__name__}")


def _rules(rules: ListRules) -> ranked_list_pb2.ListRules:
    return ranked_list_pb2.ListRules(
        allow=[key_to_wire(key) for key in rules.allow],
        deny=[key_to_wire(key) for key in rules.deny],
        caps=[ranked_list_pb2.CategoryCap(column=cap.column, limit=cap.limit, value=cap.value) for cap in rules.caps],
        new_share_min=rules.new_share_min,
    )


def list_from_wire(response: service_pb2.RankResponse) -> RankedItems:
    """A list as the caller sees it."""
    timing = response.timing
    return RankedItems(
        request_id=response.request_id,
        task=response.task,
        items=tuple(
            RankedItem(
                key=key_from_wire(item.key),
                score=item.score,
                position=item.position,
                sources=tuple(_word(ranked_list_pb2.CandidateSource, one) for one in item.sources),
                is_new=item.is_new,
            )
            for item in response.items
        ),
        applied_rules=tuple(_applied(applied) for applied in response.applied_rules),
        fallback=response.fallback,
        history_count=response.history_count,
        session_count=response.session_count,
        newest_age_us=response.newest_age_us if response.HasField("newest_age_us") else None,
        candidate_count=response.candidate_count,
        model_version=response.model_version,
        cutoff_time_us=response.cutoff_time_us,
        graph_position=position_from_wire(response.graph_position),
        timing=RankTiming(
            timing.queue_us,
            timing.freshness_wait_us,
            timing.retrieve_us,
            timing.forward_us,
            timing.rules_us,
            timing.total_us,
        ),
        degraded=degraded_from_wire(response),
    )


def _applied(applied: ranked_list_pb2.AppliedRule) -> AppliedRule:
    return AppliedRule(
        rule=_word(ranked_list_pb2.ListRule, applied.rule),
        column=applied.column,
        removed=tuple(key_from_wire(key) for key in applied.removed),
        added=tuple(key_from_wire(key) for key in applied.added),
        moved=tuple((key_from_wire(move.key), move.from_position, move.to_position) for move in applied.moved),
        lacking=applied.lacking,
    )


def _word(names: Any, value: int) -> str:
    """`LIST_RULE_NEW_SHARE` as `new_share`; a value from after this client's time as its number."""
    if value not in names.values():
        return str(value)
    name: str = names.Name(value)
    return name.removeprefix("CANDIDATE_SOURCE_").removeprefix("LIST_RULE_").lower()
