from dataclasses import replace

import numpy as np
import pytest
import torch

from graph_transformer.calibration import Calibration
from graph_transformer.checkpoint import Checkpoint
from graph_transformer.errors import CheckpointMismatch, RankQuestionError
from graph_transformer.heads import Unit
from graph_transformer.ranking.features import feature_names
from graph_transformer.ranking.fusion import Fusion, FusionConfig
from graph_transformer.ranking.lists import ItemFilter, RankedList, RankQuestion, Source
from graph_transformer.ranking.parts import RankingParts
from graph_transformer.ranking.ranker import Ranker
from protos.nowgraph.v1 import row_event_pb2 as pb

from .conftest import ITEMS, USERS, Shop, item_event, order_event

NOW_US = 1_000
ALL = tuple(f"item {index}" for index in range(ITEMS))


def checkpoint_of(shop: Shop) -> Checkpoint:
    """The shop's towers with a fusion of random weights."""
    names = feature_names(towers=True)
    torch.manual_seed(1)
    fusion = Fusion(FusionConfig(names, (0.0,) * len(names), (1.0,) * len(names), width=4, members=2))
    weights = {**shop.model.state_dict(), **{f"fusion.{name}": each for name, each in fusion.state_dict().items()}}
    return Checkpoint(
        task=shop.task,
        fingerprint=shop.view.schema.fingerprint(shop.statistics.tables()),
        statistics=shop.statistics,
        model=shop.task.model,
        unit=Unit(),
        calibration=Calibration.of(shop.task.target),
        weights=weights,
        ranking=RankingParts(shop.identities, fusion.to_dict()),
    )


@pytest.fixture
def ranker(shop: Shop) -> Ranker:
    """A ranker on the shop's live graph."""
    return Ranker(checkpoint_of(shop), shop.view)


def one(ranker: Ranker, **values: object) -> RankedList:
    """The list of one question about user 2, with values of its own."""
    question = RankQuestion(**{"user": 2, "session": (), "cutoff_time_us": NOW_US, "limit": 20, **values})  # type: ignore[arg-type]
    (found,) = ranker.rank([question]).lists
    assert len(found.key) == len(found.item) == len(found.score) == len(found.source) == len(found.first_seen_us)
    assert len(set(found.key)) == len(found.key)
    assert (np.diff(found.score) <= 0).all()
    return found


def test_a_list_has_what_was_asked_for(ranker: Ranker) -> None:
    """At most `limit` items of those that are there, each once, falling; with what it saw of the user."""
    found = one(ranker, limit=4)

    assert len(found) == 4
    assert set(found.key) <= set(ALL)
    assert found.candidate_count == ITEMS
    assert (found.history_count, found.session_count) == (8, 0)
    assert found.newest_age_us == NOW_US - (100 + 10 * 7 + 2)
    assert found.first_seen_us.tolist() == [10] * 4
    assert one(ranker, limit=1).key == found.key[:1]


def test_no_kernel_is_made_for_a_shape(shop: Shop) -> None:
    """From when there is a ranker oneDNN, which would make one for each batch, has no part in what is computed."""
    torch.backends.mkldnn.enabled = True
    Ranker(checkpoint_of(shop), shop.view)
    assert not torch.backends.mkldnn.enabled


def test_nobody_gets_what_is_popular_and_new(ranker: Ranker) -> None:
    """An unknown key and none at all are the same: no history, no age, lists all the same."""
    unknown, nobody = one(ranker, user=77), one(ranker, user=None)

    assert unknown.key == nobody.key
    assert len(nobody) == ITEMS
    assert (nobody.history_count, nobody.session_count, nobody.newest_age_us) == (0, 0, None)
    assert not any(flag & (Source.CO_VISIT | Source.HISTORY) for flag in nobody.source.tolist())


def test_what_is_left_out_is_never_listed(ranker: Ranker) -> None:
    """Excluded keys, unknown ones among them, and all that the user had."""
    whole = one(ranker)
    had = {key for key, flag in zip(whole.key, whole.source, strict=True) if flag & Source.HISTORY}

    found = one(ranker, exclude=("item 1", "no such item"), exclude_seen=True)

    assert had
    assert set(found.key) == set(ALL) - had - {"item 1"}


def test_given_candidates_are_all_that_is_ranked(ranker: Ranker) -> None:
    """In whatever order they are given, those that are not in the graph left out; none given, none listed."""
    keys = ("item 9", "item 0", "no such item", "item 5")

    found = one(ranker, candidates=keys)

    assert set(found.key) == {"item 0", "item 5", "item 9"}
    assert all(flag & Source.GIVEN for flag in found.source.tolist())
    assert one(ranker, candidates=keys[::-1]).key == found.key
    assert len(one(ranker, candidates=())) == 0


def test_filters_hold(ranker: Ranker) -> None:
    """Only items whose cells fit, in the order in which they would come without the filter."""
    cheap = ItemFilter("price", (1.0, 2.0, 3.0))

    found = one(ranker, filters=(cheap,))

    assert set(found.key) == {"item 0", "item 1", "item 2"}
    assert len(one(ranker, filters=(cheap, replace(cheap, negate=True)))) == 0


def test_the_next_list_knows_what_just_happened(shop: Shop, ranker: Ranker) -> None:
    """An order and an item that were published a moment ago count at once; as of before, nothing has changed."""
    before = one(ranker, cutoff_time_us=NOW_US)
    shop.graph.apply([item_event("brand new", NOW_US + 5, 3.0), order_event(999, 2, "brand new", NOW_US + 8)])

    after, again = one(ranker, cutoff_time_us=NOW_US + 8), one(ranker, cutoff_time_us=NOW_US)

    assert "brand new" in after.key
    assert after.newest_age_us == 0
    assert after.first_seen_us[after.key.index("brand new")] == NOW_US + 5
    assert again.key == before.key
    assert np.allclose(again.score, before.score)
    assert "brand new" not in one(ranker, cutoff_time_us=NOW_US + 4).key
    assert "brand new" not in one(ranker, cutoff_time_us=NOW_US + 4, candidates=("brand new",)).key


def test_a_session_counts_before_the_graph_has_it(ranker: Ranker) -> None:
    """A click that comes with the question is the newest of the history; it is not counted as the graph's."""
    click = order_event(5_000, 2, "item 3", NOW_US - 1)

    found = one(ranker, session=(click,))
    stranger = one(ranker, user=None, session=(order_event(5_001, 77, "item 3", NOW_US - 1),))

    assert (found.session_count, found.history_count, found.newest_age_us) == (1, 8, 1)
    assert found.source[found.key.index("item 3")] & Source.HISTORY
    assert (stranger.session_count, stranger.history_count) == (1, 0)
    assert any(flag & Source.CO_VISIT for flag in stranger.source.tolist())


def test_equal_scores_stand_in_the_order_of_keys(ranker: Ranker, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing tells items apart the list is the same every time, by key, whatever the limit cuts."""
    monkeypatch.setattr(ranker._scorer, "_score", lambda features: np.zeros(len(features), dtype=np.float32))

    assert one(ranker).key == sorted(ALL)
    assert one(ranker, limit=3).key == sorted(ALL)[:3]


def test_questions_of_one_call_are_answered_as_if_alone(ranker: Ranker) -> None:
    """Many users at many times in one call get the lists they get alone, within rounding."""
    questions = [RankQuestion(user, (), 150 + 10 * user, limit=5) for user in range(USERS)]
    questions.append(RankQuestion(1, (), NOW_US, limit=2, filters=(ItemFilter("price", (1.0,), negate=True),)))

    together = ranker.rank(questions)

    assert len(together) == len(questions)
    assert together.retrieve_us > 0
    for question, found in zip(questions, together.lists, strict=True):
        (alone,) = ranker.rank([question]).lists
        assert alone.key == found.key
        assert np.allclose(alone.score, found.score, atol=1e-4)
    assert ranker.rank([]).lists == ()


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1_001}, "limit"),
        ({"filters": (ItemFilter("cost", (1.0,)),)}, "filters[0].column"),
        ({"session": (b"no event",)}, "session"),
    ],
)
def test_a_question_that_can_not_be_answered_is_named(ranker: Ranker, values: dict[str, object], path: str) -> None:
    """The error says which of the questions, and which of its fields."""
    good = RankQuestion(1, (), NOW_US)

    with pytest.raises(RankQuestionError) as error:
        ranker.rank([good, replace(good, **values)])

    assert (error.value.question, error.value.path) == (1, path)


def test_what_is_no_ranking_does_not_rank(shop: Shop) -> None:
    """A checkpoint of another kind is refused."""
    with pytest.raises(CheckpointMismatch):
        Ranker(replace(checkpoint_of(shop), ranking=None), shop.view)


def test_the_past_is_asked_with_an_index_of_the_past(shop: Shop) -> None:
    """An item that changes after the questions is found by what it was, and ranked by what it was."""
    shop.graph.apply([item_event("item 5", NOW_US + 50, 900.0, "book")])
    view = shop.graph.view()
    config = replace(shop.task.ranking, co_visit=0, far=0, popular=0, new=0, nearest=3)
    checkpoint = replace(checkpoint_of(shop), task=replace(shop.task, ranking=config))
    never = Ranker(checkpoint_of(shop), shop.view, as_of_us=NOW_US)

    past, now = (Ranker(checkpoint, view, as_of_us=each) for each in (NOW_US, NOW_US + 50))
    rows = view.row_index("items", ["item 5"])
    vectors = [each._scorer._index._vector[each._scorer._index._line[rows]] for each in (past, never, now)]  # type: ignore[union-attr]

    assert np.allclose(vectors[0], vectors[1])
    assert not np.allclose(vectors[0], vectors[2])


def near_only(shop: Shop, most: int = 3) -> Checkpoint:
    """The shop's ranking, whose only candidates are so many of the items nearest to the user's vector."""
    config = replace(shop.task.ranking, co_visit=0, far=0, popular=0, new=0, nearest=most, exclude_seen=True)
    return replace(checkpoint_of(shop), task=replace(shop.task, ranking=config))


def near(ranker: Ranker, cutoff_time_us: int, user: int | None = 2) -> dict[object, float]:
    """Items that the index finds for a user, with their scores."""
    found = one(ranker, cutoff_time_us=cutoff_time_us, user=user)
    every = zip(found.key, found.score.tolist(), found.source.tolist(), strict=True)
    return {key: score for key, score, flag in every if flag & Source.NEAREST}


def vector_of(ranker: Ranker, row: int) -> np.ndarray:
    """The vector by which an item is found."""
    index = ranker._scorer._index
    assert index is not None
    return index._vector[index._line[row]]


def test_an_item_that_changed_is_found_by_what_it_became(shop: Shop) -> None:
    """The list after the event finds it as a ranker loaded after it does; a question as of before, as it did before."""
    ranker = Ranker(near_only(shop), shop.view)
    was, before = vector_of(ranker, 5).copy(), near(ranker, NOW_US)
    changed_us = NOW_US + 50

    shop.graph.apply([item_event(f"item {index}", changed_us, 1e4 / (index + 1), "new kind") for index in (5, 6, 7)])
    after = near(ranker, changed_us)
    fresh = Ranker(near_only(shop), shop.graph.view())

    assert np.abs(vector_of(ranker, 5) - was).max() > 0.01
    for row in range(ITEMS):
        assert np.allclose(vector_of(ranker, row), vector_of(fresh, row), atol=1e-6 if row in (5, 6, 7) else 1e-4)
    assert after == pytest.approx(near(fresh, changed_us), abs=1e-6)
    assert set(after) != set(before)
    past = Ranker(near_only(shop), shop.view, as_of_us=NOW_US)
    assert near(ranker, changed_us - 1) == pytest.approx(near(past, changed_us - 1), abs=1e-4)
    assert set(near(ranker, changed_us - 1)) == set(before)


def test_what_an_item_points_to_is_part_of_its_vector(shop: Shop) -> None:
    """A kind that changes moves the vectors of its items, and of no others."""
    ranker = Ranker(near_only(shop), shop.view)
    was = [vector_of(ranker, row).copy() for row in range(ITEMS)]
    kind = pb.RowEvent(table="kinds", operation=pb.OPERATION_UPSERT, event_time_us=NOW_US, known_time_us=NOW_US)
    kind.key.parts.add(text="book")
    kind.cells.add(column="taxed", boolean=True)

    shop.graph.apply([kind.SerializeToString()])
    one(ranker, cutoff_time_us=NOW_US)
    fresh = Ranker(near_only(shop), shop.graph.view())

    moved = [not np.array_equal(vector_of(ranker, row), was[row]) for row in range(ITEMS)]
    books = [key for key in range(ITEMS) if key % 2 == 0]
    rows = shop.view.row_index("items", [f"item {key}" for key in books]).tolist()
    assert sorted(np.flatnonzero(moved).tolist()) == sorted(rows)
    for row in rows:
        assert np.allclose(vector_of(ranker, row), vector_of(fresh, row), atol=1e-6)


@pytest.mark.parametrize("loaded_before", [True, False])
def test_a_change_that_is_known_to_come_waits_for_its_time(shop: Shop, loaded_before: bool) -> None:
    """Items are found by what they are until then, by the other from then on, whenever the change came."""
    coming_us, checkpoint = NOW_US + 500, near_only(shop)
    changes = []
    for index in (5, 6, 7):
        change = pb.RowEvent.FromString(item_event(f"item {index}", NOW_US, 1e4 / (index + 1), "new kind"))
        change.known_time_us = coming_us
        changes.append(change.SerializeToString())
    plain = near(Ranker(checkpoint, shop.view), NOW_US)
    if loaded_before:
        ranker = Ranker(checkpoint, shop.view)
        shop.graph.apply(changes, backfill=True)
    else:
        shop.graph.apply(changes, backfill=True)
        ranker = Ranker(checkpoint, shop.graph.view())
    fresh = Ranker(checkpoint, shop.graph.view(), as_of_us=coming_us)

    assert near(ranker, coming_us - 1) == pytest.approx(plain, abs=1e-3)
    assert near(ranker, coming_us) == pytest.approx(near(fresh, coming_us), abs=1e-3)
    assert set(near(ranker, coming_us)) != set(plain)
