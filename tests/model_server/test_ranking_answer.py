from __future__ import annotations

import numpy as np

from graph_transformer.ranking.lists import RankedList, RankQuestion, Source
from model_server.ranking_answer import RULES, SOURCES, key_to_wire, list_answer, sources_of
from model_server.ranking_request import AskedList
from model_server.ranking_worker import Listed, RankStages
from model_server.rules import Effect, Move, Rule, Rules
from model_server.seeds import key_of
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import ranked_list_pb2
from temporal_graph.view import GraphPosition


def answer_to(
    order: tuple[int, ...], *, history: int = 0, session: int = 0, age_us: int = 0, effects: tuple[Effect, ...] = ()
) -> object:
    """The response that shows these places of three ranked items."""
    ranked = RankedList(
        item=np.array([10, 11, 12]),
        key=["x", 7, ("eu", 3)],
        score=np.array([0.5, 0.25, -1.0]),
        source=np.array([int(Source.POPULAR | Source.CO_VISIT), int(Source.NEW), int(Source.GIVEN)]),
        first_seen_us=np.array([0, 0, 0]),
        history_count=history,
        session_count=session,
        newest_age_us=age_us if history else None,
        candidate_count=3,
    )
    question = RankQuestion(None, (), 1_000)
    asked = AskedList(service_pb2.RankRequest(request_id="r1"), question, 3, Rules(), live=True)
    listed = Listed(
        ranked, np.array([False, True, False]), order, effects, GraphPosition(1, 2, {}), "v1", RankStages(1, 2, 3, 4)
    )
    return list_answer(asked, listed, task="t", waited_s=0.005, total_s=0.0071)


def test_the_order_shown_decides_the_positions() -> None:
    """Places count from 1 whatever place the model gave; keys, scores, sources and newness go with their item."""
    response = answer_to((2, 0))
    assert [(key_of(item.key), item.score, item.position, item.is_new) for item in response.items] == [
        (("eu", 3), -1.0, 1, False),
        ("x", 0.5, 2, False),
    ]
    assert list(response.items[1].sources) == [
        ranked_list_pb2.CANDIDATE_SOURCE_CO_VISIT,
        ranked_list_pb2.CANDIDATE_SOURCE_POPULAR,
    ]
    timing = response.timing
    assert (timing.queue_us, timing.freshness_wait_us, timing.retrieve_us) == (1, 5_000, 2)
    assert (timing.forward_us, timing.rules_us, timing.total_us) == (3, 4, 7_100)


def test_a_fallback_is_a_list_that_rests_on_nothing() -> None:
    """Neither history nor session; an age of 0 is an age."""
    assert answer_to((0,)).fallback
    assert not answer_to((0,)).HasField("newest_age_us")
    assert not answer_to((0,), session=1).fallback
    assert answer_to((0,), history=1).HasField("newest_age_us")


def test_an_age_is_one_that_the_wire_can_say() -> None:
    """Of a session that began before the least time there is."""
    assert answer_to((0,), history=1, age_us=2**63 - 2).newest_age_us == 2**63 - 2
    assert answer_to((0,), history=1, age_us=2**64).newest_age_us == 2**63 - 1


def test_what_rules_did_is_told_in_keys() -> None:
    """Indices of the pool never leave the server."""
    effects = (
        Effect(Rule.CAP, "color", removed=(0,), added=(2,)),
        Effect(Rule.DIVERSITY, "color", moved=(Move(1, 2, 1),)),
        Effect(Rule.NEW_SHARE, lacking=2),
    )
    cap, diversity, share = answer_to((1, 2), effects=effects).applied_rules
    assert (cap.rule, cap.column) == (ranked_list_pb2.LIST_RULE_CAP, "color")
    assert [key_of(key) for key in (*cap.removed, *cap.added)] == ["x", ("eu", 3)]
    assert [(key_of(move.key), move.from_position, move.to_position) for move in diversity.moved] == [(7, 2, 1)]
    assert share.lacking == 2


def test_the_wire_has_a_word_for_every_source_and_rule() -> None:
    """A source or rule that is added is added to the wire too, in the same order."""
    assert list(SOURCES) == list(Source)
    assert [*SOURCES.values()] == ranked_list_pb2.CandidateSource.values()[1:]
    assert list(RULES) == list(Rule)
    assert [*RULES.values()] == ranked_list_pb2.ListRule.values()[1:]
    assert sources_of(0) == ()


def test_keys_survive_the_wire() -> None:
    """One part or several, integers and texts."""
    for key in (5, -(2**63), "", "x", ("eu", 3)):
        assert key_of(key_to_wire(key)) == key
