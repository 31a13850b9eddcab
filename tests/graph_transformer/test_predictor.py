from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graph_transformer.checkpoint import Checkpoint
from graph_transformer.encoding.encoding import Encoding
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.errors import CheckpointMismatch
from graph_transformer.model import build_model
from graph_transformer.predictor import Predictor
from online_sampler.sampler import Sampler
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import parse_schema

ARENA_BYTES = 64 << 20


@pytest.fixture
def folder(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """A folder with a good checkpoint."""
    checkpoint.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_predictor_says_what_it_is(folder: Path, checkpoint: Checkpoint, payments: Any) -> None:
    """Task, sampling plan and version are those of the checkpoint."""
    predictor = Predictor.load(folder, payments)
    assert predictor.version == checkpoint.version
    assert predictor.task == checkpoint.task
    assert predictor.sampling_plan == predictor.plan == checkpoint.task.sampling_plan


def test_probability_is_the_calibrated_logit(folder: Path, payments: Any, draw_history: Callable[..., Any]) -> None:
    """probability = 1 / (1 + e^-logit), one float64 per seed."""
    prediction = Predictor.load(folder, payments).predict(draw_history(payments, 7, 12))
    assert prediction.logit.shape == prediction.probability.shape == (7,)
    assert prediction.logit.dtype == prediction.probability.dtype == np.float64
    assert np.allclose(prediction.probability, 1 / (1 + np.exp(-prediction.logit)))


def test_equal_inputs_give_equal_logits_in_any_batch(
    folder: Path, payments: Any, draw_history: Callable[..., Any]
) -> None:
    """Alone or among others the logit is the same within 1e-5."""
    predictor = Predictor.load(folder, payments)
    first = predictor.predict(draw_history(payments, 1, 40)).logit[0]
    among = predictor.predict(draw_history(payments, 20, 40)).logit[0]
    assert abs(first - among) < 1e-5


def test_fixed_shape_gives_equal_bits(folder: Path, payments: Any, draw_history: Callable[..., Any]) -> None:
    """In the mode that replays use, company, threads and repetition change no bit; the answer is the usual one."""
    exact = Predictor.load(folder, payments, fixed_shape=True)
    alone = exact.predict(draw_history(payments, 1, 40)).logit[0]
    threads = torch.get_num_threads()
    for several in (1, 2):
        torch.set_num_threads(several)
        found = [exact.predict(draw_history(payments, size, 40)).logit[0] for size in (1, 3, 20)]
        assert [value.tobytes() for value in found] == [alone.tobytes()] * 3
        assert torch.get_num_threads() == several
    torch.set_num_threads(threads)
    usual = Predictor.load(folder, payments).predict(draw_history(payments, 3, 40)).logit[0]
    assert abs(usual - alone) < 1e-5


def test_numbers_of_a_seed_give_equal_bits(
    checkpoint: Checkpoint, payments: Any, draw_history: Callable[..., Any]
) -> None:
    """A model that reads tallies and comparisons answers with the same bits alone and in company, as replays ask."""
    neighborhood = draw_history(payments, 20, 40)
    target, reads = checkpoint.task.target, {"tallies": True, "comparisons": True}
    statistics = fit_statistics([neighborhood], payments.schema, payments.strings, target=target, **reads)
    model = build_model(Encoding(statistics, payments.schema, payments.strings).layout(), checkpoint.model, 1)
    weights = {name: torch.randn_like(weight) * 0.1 for name, weight in model.state_dict().items()}
    model_config = replace(checkpoint.model, **reads)
    told = replace(checkpoint, statistics=statistics, weights=weights, model=model_config)
    exact = Predictor(told, payments, fixed_shape=True)
    found = [exact.predict(draw_history(payments, size, 40)).logit[0] for size in (1, 3, 20)]
    assert [value.tobytes() for value in found] == [found[0].tobytes()] * 3
    usual = Predictor(told, payments).predict(draw_history(payments, 3, 40)).logit[0]
    assert abs(usual - found[0]) < 1e-5


def test_no_seeds_no_answers(folder: Path, payments: Any) -> None:
    """An empty request is answered with nothing, not with an error."""
    assert len(Predictor.load(folder, payments).predict(payments.build()).logit) == 0


def test_a_key_never_seen_is_answered(folder: Path, payments: Any) -> None:
    """A payment without history, and one without any cell, get finite answers."""
    payments.seed("transactions", 1000, {"amount": 20.0})
    payments.seed("transactions", 1000)
    assert np.isfinite(Predictor.load(folder, payments).predict(payments.build()).logit).all()


def test_several_threads_predict_at_once(folder: Path, payments: Any, draw_history: Callable[..., Any]) -> None:
    """Concurrent callers get the answers they would have got in turn."""
    predictor = Predictor.load(folder, payments)
    neighborhoods = [draw_history(payments, 4, 30, seed=seed) for seed in range(12)]
    expected = [predictor.predict(neighborhood).logit for neighborhood in neighborhoods]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: predictor.predict(n).logit, neighborhoods))
    assert np.allclose(np.concatenate(found), np.concatenate(expected), atol=1e-5)


def test_a_graph_of_another_schema_is_refused(folder: Path) -> None:
    """A predictor never starts on a graph that its model was not made for."""

    class Other:
        schema = parse_schema("version: 1\nname: o\ntables:\n  things:\n    primary_key: {id: integer}\n")

        def strings(self, *_: object) -> list[None]:
            return []

    with pytest.raises(CheckpointMismatch):
        Predictor.load(folder, Other())


def test_the_number_of_threads_can_be_set(folder: Path, payments: Any) -> None:
    """`threads` reaches PyTorch."""
    before = torch.get_num_threads()
    Predictor.load(folder, payments, threads=1)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


def test_no_kernel_is_made_for_a_shape(folder: Path, payments: Any) -> None:
    """From when there is a predictor oneDNN, which would make one for each batch, has no part in what is computed."""
    torch.backends.mkldnn.enabled = True
    Predictor.load(folder, payments)
    assert not torch.backends.mkldnn.enabled


def test_codes_are_read_by_the_view_that_was_told_last(world: Any) -> None:
    """Two graphs of the same rows number their strings otherwise: told whose codes they are, the same model gives the
    same bits, in turn; not told, it takes one word for another.
    """
    rows = [world.event(500 + number, world.start_us + 9 * 10**9 + number, customer=77) for number in range(2)]
    with (
        TemporalGraph.create(world.schema, arena_bytes=ARENA_BYTES) as first,
        TemporalGraph.create(world.schema, arena_bytes=ARENA_BYTES) as second,
    ):
        first.apply(rows, backfill=True)
        second.apply(rows[::-1], backfill=True)
        samplers = [Sampler(graph.view(), world.predictor(graph.view()).plan) for graph in (first, second)]
        asked = world.event(900, world.start_us + 10**10, customer=77)
        found = [sampler.sample_events([asked], np.array([world.start_us + 10**10])) for sampler in samplers]
        predictor = world.predictor(samplers[0].view, fixed_shape=True)
        model, told = predictor._model, predictor.predict(found[0]).logit
        assert predictor.predict(found[1]).logit != told
        for _ in range(2):
            for sampler, one in zip(samplers, found, strict=True):
                predictor.read(sampler.view)
                assert predictor.predict(one).logit.tobytes() == told.tobytes()
        assert predictor._model is model
