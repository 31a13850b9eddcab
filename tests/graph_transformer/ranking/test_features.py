from collections.abc import Iterator

import numpy as np
import pytest

from graph_transformer.ranking.asked import Asked, Ragged
from graph_transformer.ranking.candidates import Retrieved, Retriever
from graph_transformer.ranking.catalog import Catalog
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.features import OWN, Features, feature_names
from graph_transformer.target import Ranked
from online_sampler.co_visits import CoVisitWalk
from temporal_graph.graph import TemporalGraph
from temporal_graph.view import GraphView

from .store import at, item, opened, order, orders

RANKED = Ranked("orders", "user_id", "item_id", "items", 3)
CONFIG = RankingConfig(co_visit=9, far=9, popular=9, new=0, history=4, half_life="1d")
NAMES = feature_names(towers=False)
DAY = 86_400.0


@pytest.fixture
def graph() -> Iterator[TemporalGraph]:
    """User 1 takes a, b, and a again; from a others go to c twice and to d once; c is like a in color, d is not."""
    colors = {"a": "red", "b": "blue", "c": "red", "d": "blue", "e": "green"}
    events = [item(name, 0, color=color) for name, color in colors.items()]
    events += orders([(1, "a", DAY), (1, "b", 2 * DAY), (1, "a", 4 * DAY)])
    events += orders([(2, "a", 10), (2, "c", 20), (3, "a", 30), (3, "c", 40), (4, "a", 50), (4, "d", 60)], first=50)
    with opened(events) as made:
        yield made


def computed(
    view: GraphView, asked_seconds: list[float], tower: bool = False
) -> tuple[Retrieved, list[dict[str, dict[str, float]]]]:
    """The features of user 1's candidates at these times, by item and name."""
    catalog = Catalog(view, RANKED, CONFIG)
    catalog.refresh()
    retriever = Retriever(CoVisitWalk(view, "orders", "user_id", "item_id"), catalog, CONFIG)
    user = np.repeat(view.row_index("users", [1]), len(asked_seconds))
    asked = Asked.plain(user, np.array([at(each) for each in asked_seconds]), exclude_seen=False)
    found = retriever.retrieve(asked, Ragged.none(len(user)))
    products = np.arange(len(found), dtype=np.float32) if tower else None
    features = Features(catalog, CONFIG).of(asked, found, products)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    names = feature_names(towers=tower)
    assert features.shape == (len(found), len(names))
    lists: list[dict[str, dict[str, float]]] = [{} for _ in asked_seconds]
    for question, key, line in zip(found.question, view.keys("items", found.item), features.tolist(), strict=True):
        lists[question][str(key)] = dict(zip(names, line, strict=True))
    return found, lists


def test_walks_and_contents_say_which_is_nearer(graph: TemporalGraph) -> None:
    """More walks to c than to d, and c looks like a: every score of it is larger, its ranks are smaller."""
    _, (found,) = computed(graph.view(), [5 * DAY])

    for name in ("walk_decayed", "walk_last", "walk_forward", "walk_content", "walk_mixed", "content", "share_best"):
        assert found["c"][name] > found["d"][name], name
    assert found["c"]["rank_walk"] < found["d"]["rank_walk"]
    assert found["c"]["walk_entries"] == pytest.approx(np.log1p(1))
    assert found["c"]["content_best"] == pytest.approx(1.0)


def test_a_repeat_is_seen_with_its_rhythm(graph: TemporalGraph) -> None:
    """What the user had: how often, how long ago, whether it is due, in which share of his orders."""
    _, (found,) = computed(graph.view(), [5 * DAY])
    a, c = found["a"], found["c"]

    assert a["own_count"] == pytest.approx(np.log1p(2))
    assert a["own_age"] == pytest.approx(np.log1p(1.0))
    assert a["own_due"] == pytest.approx(np.log(2.0 / 4.0))
    assert a["own_share"] == pytest.approx(2 / 3)
    assert a["own_place"] == 1.0
    assert found["b"]["own_place"] == 0.5
    faded = [sum(0.5 ** (days / life) for days in (1, 4)) for life in (14, 90)]
    assert [a["own_weeks"], a["own_months"]] == pytest.approx([np.log(each / 0.01 + 1.0) for each in faded], abs=1e-5)
    assert [c[name] for name in OWN] == [0.0] * len(OWN)
    assert c["user_repeats"] == pytest.approx(1 / 3)
    assert c["user_together"] == pytest.approx(np.log1p(1.0))


def test_items_are_counted_as_of_the_cut_off(graph: TemporalGraph) -> None:
    """How often, how often of late, since when and until when; each in its own question's time."""
    _, (early, late) = computed(graph.view(), [DAY + 1, 4.5 * DAY])

    assert early["a"]["item_count"] == pytest.approx(np.log1p(4))
    assert late["a"]["item_count"] == pytest.approx(np.log1p(5))
    assert late["c"]["item_count"] == pytest.approx(np.log1p(2))
    assert late["c"]["item_recent"] == 0.0
    assert late["a"]["item_recent"] == pytest.approx(np.log1p(1), abs=1e-6)
    assert late["a"]["item_idle"] == pytest.approx(np.log1p(0.5))
    assert late["c"]["item_known"] == pytest.approx(np.log1p(4.5))
    assert late["a"]["user_count"] == pytest.approx(np.log1p(3))


def test_questions_do_not_touch_each_other(graph: TemporalGraph) -> None:
    """Asked together or alone, a question's features are the same."""
    view = graph.view()
    times = [3 * DAY, 5 * DAY, 4.5 * DAY]
    _, together = computed(view, times)

    for place, seconds in enumerate(times):
        _, (alone,) = computed(view, [seconds])
        assert alone.keys() == together[place].keys()
        for name, line in alone.items():
            assert line == pytest.approx(together[place][name], abs=1e-6)


def test_what_comes_later_changes_nothing(graph: TemporalGraph) -> None:
    """Orders after the cut-off, of the user or of others, leave every feature as it was."""
    view = graph.view()
    _, (before,) = computed(view, [5 * DAY])
    graph.apply([order(90, 1, "c", 5 * DAY + 1e-6), order(91, 7, "a", 5 * DAY + 1), order(92, 7, "d", 5 * DAY + 2)])

    _, (after,) = computed(graph.view(), [5 * DAY])

    assert after.keys() == before.keys()
    for name, line in after.items():
        assert line == pytest.approx(before[name], abs=1e-6)


def test_towers_add_a_softmax_and_a_rank(graph: TemporalGraph) -> None:
    """The logarithms of shares are those of a softmax over the question's candidates, the best is first."""
    found, (lines,) = computed(graph.view(), [5 * DAY], tower=True)

    shares = np.exp([line["tower"] for line in lines.values()])
    best = max(lines.values(), key=lambda line: line["tower"])
    assert shares.sum() == pytest.approx(1.0, abs=1e-4)
    assert (best["tower_share"], best["rank_tower"]) == (1.0, 0.0)
    assert len(found) == len(lines)
