"""From a list to what the wire says of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from graph_transformer.ranking.lists import Source
from model_server.answer import position_of
from model_server.rules import Effect, Rule
from model_server.seeds import write_key
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import ranked_list_pb2, row_event_pb2
from temporal_graph.time_rule import TIME_MAX_US
from temporal_graph.view import Key

if TYPE_CHECKING:
    from model_server.ranking_request import AskedList
    from model_server.ranking_worker import Listed

SOURCES: Mapping[Source, ranked_list_pb2.CandidateSource.ValueType] = {
    Source.CO_VISIT: ranked_list_pb2.CANDIDATE_SOURCE_CO_VISIT,
    Source.POPULAR: ranked_list_pb2.CANDIDATE_SOURCE_POPULAR,
    Source.NEW: ranked_list_pb2.CANDIDATE_SOURCE_NEW,
    Source.NEAREST: ranked_list_pb2.CANDIDATE_SOURCE_NEAREST,
    Source.HISTORY: ranked_list_pb2.CANDIDATE_SOURCE_HISTORY,
    Source.GIVEN: ranked_list_pb2.CANDIDATE_SOURCE_GIVEN,
}
RULES: Mapping[Rule, ranked_list_pb2.ListRule.ValueType] = {
    Rule.ALLOW: ranked_list_pb2.LIST_RULE_ALLOW,
    Rule.DENY: ranked_list_pb2.LIST_RULE_DENY,
    Rule.DIVERSITY: ranked_list_pb2.LIST_RULE_DIVERSITY,
    Rule.CAP: ranked_list_pb2.LIST_RULE_CAP,
    Rule.NEW_SHARE: ranked_list_pb2.LIST_RULE_NEW_SHARE,
}


@cache
def sources_of(flags: int) -> tuple[Source, ...]:
    """The sources that a list's flags name, in the enumeration's order."""
    return tuple(source for source in Source if flags & source)


@cache
def _wire_sources(flags: int) -> tuple[ranked_list_pb2.CandidateSource.ValueType, ...]:
    return tuple(SOURCES[source] for source in sources_of(flags))


def list_answer(
    asked: AskedList, listed: Listed, *, task: str, waited_s: float, total_s: float
) -> service_pb2.RankResponse:
    """The response to one request; ages are counted from the cut-off, in microseconds."""
    ranked, stages = listed.ranked, listed.stages
    response = service_pb2.RankResponse(
        request_id=asked.request.request_id,
        task=task,
        fallback=ranked.history_count == 0 and ranked.session_count == 0,
        history_count=ranked.history_count,
        session_count=ranked.session_count,
        newest_age_us=None if ranked.newest_age_us is None else min(ranked.newest_age_us, TIME_MAX_US),
        candidate_count=ranked.candidate_count,
        model_version=listed.model_version,
        cutoff_time_us=asked.question.cutoff_time_us,
        graph_position=position_of(listed.position),
        timing=ranked_list_pb2.RankTiming(
            queue_us=stages.queue_us,
            freshness_wait_us=round(waited_s * 1e6),
            retrieve_us=stages.retrieve_us,
            forward_us=stages.forward_us,
            rules_us=stages.rules_us,
            total_us=round(total_s * 1e6),
        ),
    )
    places = list(listed.order)
    shown = (numbers[places].tolist() for numbers in (ranked.score, ranked.source, listed.is_new))
    for position, (place, score, flags, is_new) in enumerate(zip(places, *shown, strict=True), start=1):
        item = response.items.add(score=score, position=position, sources=_wire_sources(flags), is_new=is_new)
        write_key(item.key, ranked.key[place])
    for effect in listed.effects:
        _write_effect(response.applied_rules.add(), effect, ranked.key)
    return response


def _write_effect(applied: ranked_list_pb2.AppliedRule, effect: Effect, keys: list[Key]) -> None:
    applied.rule = RULES[effect.rule]
    applied.column = effect.column
    applied.lacking = effect.lacking
    applied.removed.extend(key_to_wire(keys[item]) for item in effect.removed)
    applied.added.extend(key_to_wire(keys[item]) for item in effect.added)
    for move in effect.moved:
        applied.moved.add(
            key=key_to_wire(keys[move.item]), from_position=move.from_position, to_position=move.to_position
        )


def key_to_wire(key: Key) -> row_event_pb2.Key:
    """A key of the graph in the wire's form."""
    found = row_event_pb2.Key()
    write_key(found, key)
    return found
