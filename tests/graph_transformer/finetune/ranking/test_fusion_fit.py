"""The fitting of a fusion: lists as they are learned from, and a rule that is found."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from graph_transformer.errors import NotEnoughExamples
from graph_transformer.finetune.ranking import fusion_fit
from graph_transformer.finetune.ranking.fusion_fit import FusionLists, fit_fusion, learned_lists
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.fusion import Fusion

CONFIG = RankingConfig(fusion_steps=180, fusion_width=8, fusion_dropout=0.0)
NAMES = ("signal", "noise")


def lists(count: int, seed: int = 0) -> FusionLists:
    """Lists of ten candidates, of which the one with the largest signal is right, whatever the noise."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, 10, 2))
    right = features[:, :, 0].argmax(axis=1)[:, None] == np.arange(10)[None, :]
    return FusionLists(NAMES, np.arange(count + 1) * 10, features.reshape(-1, 2).astype(np.float16), right.reshape(-1))


def hits(fusion: Fusion, found: FusionLists) -> float:
    """The share of lists whose best candidate is right."""
    with torch.inference_mode():
        score = fusion(torch.from_numpy(found.features.astype(np.float32))).numpy().reshape(-1, 10)
    return float(found.right.reshape(-1, 10)[np.arange(len(score)), score.argmax(axis=1)].mean())


def test_a_rule_is_found() -> None:
    """On lists not learned from, the right candidate is mostly first; equal seeds give equal weights."""
    found, steps = fit_fusion(lists(400), CONFIG, members=1, steps=180, seed=1)
    first, again = (fit_fusion(lists(20), CONFIG, members=2, steps=9, seed=1)[0] for _ in range(2))

    assert steps == 180
    assert hits(found, lists(200, seed=9)) > 0.9
    assert all(torch.equal(one, other) for one, other in zip(first.parameters(), again.parameters(), strict=True))


def test_the_step_is_the_one_that_judges_best() -> None:
    """What is kept is the look with the largest value, and its step is told."""
    values = iter([0.1, 0.9, 0.3])
    seen = []

    def judge(fusion: Fusion) -> float:
        seen.append([parameter.detach().clone() for parameter in fusion.parameters()])
        return next(values)

    fusion, steps = fit_fusion(lists(40), CONFIG, members=1, judge=judge, looks=3)

    assert steps == round(fusion_fit.STEPS_MIN * 2 / 3)
    assert all(torch.equal(one, kept) for one, kept in zip(fusion.parameters(), seen[1], strict=True))


def test_steps_grow_with_the_lists_and_end_with_the_tasks() -> None:
    """Without a number, every list is seen PASSES times, as far as the task allows it."""
    few, many = (fit_fusion(lists(count), CONFIG, members=1)[1] for count in (20, 1500))

    assert few == fusion_fit.STEPS_MIN
    assert many == 1500 * fusion_fit.PASSES // fusion_fit.BATCH


def test_time_ends_the_steps_and_shortens_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 steps ten are taken where a second is a step: the rate falls to zero by then, and the last is judged."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    rates: list[float] = []
    told: list[tuple[int, int]] = []
    share = fusion_fit._share

    def shared(step: int, total: int) -> float:
        rates.append(share(step, total))
        return rates[-1]

    monkeypatch.setattr(fusion_fit, "_share", shared)

    def loss(fusion: Fusion, *_: object) -> torch.Tensor:
        now[0] += 1.0
        return sum(parameter.square().sum() for parameter in fusion.parameters())  # type: ignore[return-value]

    monkeypatch.setattr(fusion_fit, "_loss", loss)
    values = iter([0.1, 0.2, 0.3])
    _, steps = fit_fusion(
        lists(20), CONFIG, members=1, judge=lambda _: next(values), most_s=10.0, told=lambda *each: told.append(each)
    )
    assert (steps, told) == (10, [(10, fusion_fit.STEPS_MIN)])
    assert next(values, None) is None
    assert rates[-1] == 0.0
    assert max(rates) == pytest.approx(1.0, abs=0.05)


def test_time_enough_changes_nothing() -> None:
    """With more seconds than it takes, the weights are those without a limit, and all steps are told."""
    told = []
    free, steps = fit_fusion(lists(20), CONFIG, members=1, steps=9, seed=1)
    kept, same = fit_fusion(
        lists(20), CONFIG, members=1, steps=9, seed=1, most_s=1e6, told=lambda *each: told.append(each)
    )
    assert (same, told) == (steps, [(9, 9)])
    assert all(torch.equal(one, other) for one, other in zip(free.parameters(), kept.parameters(), strict=True))


def test_too_few_lists_are_refused() -> None:
    """Nothing is learned from a handful."""
    with pytest.raises(NotEnoughExamples):
        fit_fusion(lists(fusion_fit.LISTS_MIN - 1), CONFIG, members=1)


def test_lists_without_an_answer_teach_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """All right candidates stay, so many wrong ones at most; lists without a right one are left out."""
    monkeypatch.setattr(fusion_fit, "OTHERS_MAX", 2)
    offset = np.array([0, 5, 5, 8, 12])
    features = np.arange(12, dtype=np.float32)[:, None]
    right = np.zeros(12, dtype=bool)
    right[[1, 4, 10]] = True

    found = learned_lists(("place",), offset, features, right, np.random.default_rng(0))

    assert found.offset.tolist() == [0, 4, 7]
    assert found.right.sum() == 3
    assert set(found.features[found.right, 0].tolist()) == {1.0, 4.0, 10.0}
    both = FusionLists.joined([found, found])
    assert (len(both), both.offset.tolist()) == (4, [0, 4, 7, 11, 14])


def test_several_answers_share_a_list() -> None:
    """A list with two right ones puts both before the rest."""
    one = lists(400)
    features = one.features.astype(np.float32).reshape(-1, 10, 2)
    right = np.zeros((400, 10), dtype=bool)
    np.put_along_axis(right, np.argsort(-features[:, :, 0], axis=1)[:, :2], True, axis=1)

    fusion, _ = fit_fusion(
        FusionLists(NAMES, one.offset, one.features, right.reshape(-1)), CONFIG, members=1, steps=180
    )

    with torch.inference_mode():
        score = fusion(torch.from_numpy(features.reshape(-1, 2))).numpy().reshape(-1, 10)
    best = np.argsort(-score, axis=1)[:, :2]
    assert np.take_along_axis(right, best, axis=1).mean() > 0.9
