from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_server.rules import (
    Cap,
    Diversity,
    Effect,
    Move,
    Pool,
    Rule,
    Rules,
    allowed,
    apply_rules,
    diversified,
    effect_of,
    not_denied,
    placed,
)

NAMES = ("a", "b", "c")


def pool_of(*items: tuple[float, str, bool]) -> Pool:
    """Items of (score, letters of their categories, new) with their indices as keys."""
    return Pool(
        key=list(range(len(items))),
        score=[score for score, _, _ in items],
        is_new=[is_new for _, _, is_new in items],
        categories={"kind": [frozenset(letters) for _, letters, _ in items]},
    )


pools = st.lists(
    st.tuples(st.floats(-5, 5), st.sets(st.sampled_from(NAMES)).map("".join), st.booleans()), max_size=12
).map(lambda items: pool_of(*sorted(items, key=lambda item: -item[0])))
caps = st.lists(st.builds(Cap, st.just("kind"), st.integers(0, 3), st.none() | st.sampled_from(NAMES)), max_size=2).map(
    tuple
)
keys = st.frozensets(st.integers(0, 14))
rule_sets = st.builds(
    Rules,
    allow=st.none() | keys,
    deny=keys,
    diversity=st.none() | st.builds(Diversity, st.floats(0, 1), st.just("kind")),
    caps=caps,
    new_share_min=st.floats(0, 1),
)


def exceeds(order: tuple[int, ...], pool: Pool, cap: Cap) -> bool:
    """Whether some category has more items than the cap allows."""
    return any(
        sum(name in pool.categories["kind"][item] for item in order) > cap.limit
        for name in NAMES
        if cap.value in (None, name)
    )


@given(pools, rule_sets, st.integers(1, 8))
def test_every_rule_holds_at_once(pool: Pool, rules: Rules, k: int) -> None:
    """No item twice, at most k, all allowed, none denied, no cap exceeded, and scores fall unless variety reorders."""
    order, effects = apply_rules(pool, rules, k)
    assert len(set(order)) == len(order) <= k
    assert rules.allow is None or {pool.key[item] for item in order} <= rules.allow
    assert not {pool.key[item] for item in order} & rules.deny
    assert not any(exceeds(order, pool, cap) for cap in rules.caps)
    if rules.diversity is None:
        assert list(order) == sorted(order)
    if rules.new_share_min:
        new = sum(pool.is_new[item] for item in order)
        assert new + effects[-1].lacking >= math.ceil(rules.new_share_min * k - 1e-9)


@given(pools, rule_sets, st.integers(1, 8))
def test_the_effects_account_for_the_whole_difference(pool: Pool, rules: Rules, k: int) -> None:
    """What the model put first, less what rules removed, and with what they let in, is what is shown."""
    shown = set(range(len(pool.key))[:k])
    order, effects = apply_rules(pool, rules, k)
    for effect in effects:
        assert set(effect.removed) <= shown
        assert not set(effect.added) & shown
        shown = (shown - set(effect.removed)) | set(effect.added)
    assert shown == set(order)
    named = [effect.rule for effect in effects]
    assert named == sorted(named, key=list(Rule).index)
    asked = [rules.allow is not None, bool(rules.deny), rules.diversity is not None, rules.new_share_min > 0]
    assert len(named) == sum(asked) + len(rules.caps)


def test_without_rules_the_first_k_are_shown() -> None:
    """Nothing is reported where nothing was asked; a request for more than there is gets what there is."""
    pool = pool_of((3.0, "a", False), (2.0, "a", False))
    assert not Rules()
    assert apply_rules(pool, Rules(), 1) == ((0,), ())
    assert apply_rules(pool, Rules(), 9) == ((0, 1), ())


def test_allow_and_deny_go_by_key() -> None:
    """Order stays; an empty list of allowed keys is not the same as none."""
    pool = pool_of(*[(float(-n), "a", False) for n in range(4)])
    assert allowed((3, 1, 2), pool, frozenset({1, 3})) == (3, 1)
    assert not_denied((3, 1, 2), pool, frozenset({1, 3})) == (2,)
    assert apply_rules(pool, Rules(allow=frozenset()), 2)[0] == ()


def test_caps_let_the_next_best_in() -> None:
    """Above the cap an item makes room for the next of another category; without a category nothing is capped."""
    pool = pool_of((9, "a", False), (8, "a", False), (7, "ab", False), (6, "", False), (5, "b", False), (4, "", False))
    assert placed(tuple(range(6)), pool, 4, [Cap("kind", 1)], 0) == (0, 3, 4, 5)
    assert placed(tuple(range(6)), pool, 4, [Cap("kind", 1, "b")], 0) == (0, 1, 2, 3)
    order, effects = apply_rules(pool, Rules(caps=(Cap("kind", 2, "a"), Cap("kind", 0, "b"))), 3)
    assert order == (0, 1, 3)
    assert [(effect.removed, effect.added) for effect in effects] == [((2,), (3,)), ((), ())]


def test_new_items_take_the_last_places_that_old_ones_leave() -> None:
    """The share is of k and rounded up; the best new ones come in at their own place, the worst old ones go."""
    pool = pool_of(*[(float(-n), "a", n in {3, 5, 7}) for n in range(8)])
    order, (effect,) = apply_rules(pool, Rules(new_share_min=0.3), 4)
    assert order == (0, 1, 3, 5)
    assert effect == Effect(Rule.NEW_SHARE, removed=(2,), added=(5,))
    order, (effect,) = apply_rules(pool, Rules(new_share_min=1.0), 4)
    assert (order, effect.lacking) == ((0, 3, 5, 7), 1)
    assert apply_rules(pool, Rules(new_share_min=0.25), 4)[1][0] == Effect(Rule.NEW_SHARE)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from(("", *NAMES)), st.booleans()), max_size=7),
    st.integers(1, 4),
    st.integers(0, 2),
    st.integers(0, 4),
)
def test_no_other_choice_has_more_new_items(
    items: list[tuple[float, str, bool]], k: int, limit: int, wanted: int
) -> None:
    """With one category an item, the greedy choice reaches as many of the wanted new items as any choice could."""
    pool = pool_of(*items)
    cap = Cap("kind", limit)
    best = max(
        min(wanted, sum(pool.is_new[item] for item in some))
        for size in range(min(k, len(items)) + 1)
        for some in combinations(range(len(items)), size)
        if not exceeds(some, pool, cap)
    )
    shown = placed(tuple(range(len(items))), pool, k, [cap], wanted)
    assert min(wanted, sum(pool.is_new[item] for item in shown)) == best


def test_diversity_puts_what_is_unlike_forward() -> None:
    """Worked out by hand: relevance 1, .75, .5, .25, 0; half a weight on variety."""
    pool = pool_of((5, "a", False), (4, "a", False), (3, "ab", False), (2, "b", False), (1, "", False))
    order = (0, 1, 2, 3, 4)
    assert diversified(order, pool, Diversity(0.0, "kind"), 5) == order
    # second place: .375 - .5, .25 - .25, .125 - 0, 0 - 0
    assert diversified(order, pool, Diversity(0.5, "kind"), 2) == (0, 3, 1, 2, 4)
    assert diversified(order, pool, Diversity(1.0, "kind"), 3) == (0, 3, 4, 1, 2)
    shown, (effect,) = apply_rules(pool, Rules(diversity=Diversity(0.5, "kind")), 3)
    assert shown == (0, 3, 2)  # the third place is even between 2 and 4
    assert effect == Effect(Rule.DIVERSITY, "kind", removed=(1,), added=(3,))


def test_equal_scores_and_no_categories_keep_their_order() -> None:
    """Nothing is more relevant and nothing alike: there is no reason to move anybody."""
    pool = pool_of(*[(1.0, "", False)] * 4)
    assert diversified((2, 0, 1, 3), pool, Diversity(0.7, "kind"), 4) == (2, 0, 1, 3)
    assert diversified((), pool, Diversity(0.7, "kind"), 4) == ()


def test_a_move_is_a_change_of_places_and_no_gap_that_closes() -> None:
    """Who only moves up because another left has not been moved by the rule."""
    assert effect_of(Rule.DENY, (0, 1, 2), (1, 2, 3)) == Effect(Rule.DENY, removed=(0,), added=(3,))
    swapped = effect_of(Rule.DIVERSITY, (0, 1, 2), (0, 2, 1))
    assert swapped.moved == (Move(2, 3, 2), Move(1, 2, 3))


@pytest.mark.parametrize(
    ("rules", "columns"),
    [
        (Rules(), ()),
        (Rules(caps=(Cap("kind", 1), Cap("kind", 2, "a"))), ("kind",)),
        (Rules(caps=(Cap("kind", 1),), diversity=Diversity(0.5, "color")), ("kind", "color")),
    ],
)
def test_only_the_columns_that_rules_name_are_read(rules: Rules, columns: tuple[str, ...]) -> None:
    """Each once."""
    assert rules.columns == columns
