"""What is being served right now, replaced as a whole.

    writer catches up ─► its generation becomes the folder's current one ─► Switch attaches ─► Generations.replace

Every batch takes one `Serving` and keeps it: an answer comes from one generation and one model, whatever happens
meanwhile. The old generation's memory goes with the last batch that used it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graph_transformer.predictor import Predictor
from graph_transformer.ranking.lists import ListRanker
from model_server.errors import DrainingError
from model_server.item_columns import ItemColumns
from model_server.seeds import Seed, sample
from model_server.store import ServedView, StoreSampler, StoreView
from online_sampler.neighborhood import Neighborhood
from online_sampler.plan import SamplingPlan
from online_sampler.sampler import Sampler
from temporal_graph.view import GraphView


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """One generation and the predictor over it, compared by identity.

    A view or a sampler belongs to one thread at a time, so each thread has its own: `view` and `sampler` are the
    engine's (its predictor reads the view too), `watch` is the event loop's, `look_sampler` is the inspection's, with
    its view; `shadows` read one of their own, and have the predictor's sampling plan. Nobody else keeps them, so
    that a generation's memory goes with its Serving.
    """

    view: ServedView
    watch: ServedView
    predictor: Predictor
    sampler: Sampler | StoreSampler
    look_sampler: Sampler | StoreSampler
    shadows: tuple[Predictor, ...] = ()

    @classmethod
    def over(cls, view: ServedView, predictor: Predictor) -> Serving:
        """Serves `view`, which `predictor` was loaded for and which is the engine's from now on.

        Raises PlanError for a plan that a graph in Redis cannot answer.
        """
        plan = predictor.sampling_plan
        return cls(view, view.twin(), predictor, _sampler(view, plan), _sampler(view.twin(), plan))

    def sample(self, seeds: Sequence[Seed]) -> Neighborhood:
        """As `seeds.sample`, for the predictor, which reads the answer's codes from now on: the engine's alone.

        Raises SeedError, and GraphUnavailableError where the graph's store cannot answer.
        """
        found = sample(self.sampler, self.predictor.task.target, seeds)
        self.predictor.read(self.sampler.view)
        return found

    @property
    def version(self) -> str:
        """The model's."""
        return self.predictor.version


@dataclass(frozen=True, slots=True, eq=False)
class RankServing:
    """One generation and the ranker over it, compared by identity.

    `ranker` and `columns` are the engine's and read the same view; `watch` is the event loop's.
    """

    watch: GraphView
    ranker: ListRanker
    columns: ItemColumns

    @classmethod
    def over(cls, view: GraphView, ranker: ListRanker) -> RankServing:
        """Serves `view`, which `ranker` was loaded for and which is the engine's from now on."""
        ranked = ranker.task.target.ranked
        assert ranked is not None  # of a ranking
        return cls(view.twin(), ranker, ItemColumns(view, ranked.items))

    @property
    def version(self) -> str:
        """The model's."""
        return self.ranker.version


def _sampler(view: ServedView, plan: SamplingPlan) -> Sampler | StoreSampler:
    return view.sampler(plan) if isinstance(view, StoreView) else Sampler(view, plan)


Served = Serving | RankServing


def serving_over(view: ServedView, model: Predictor | ListRanker) -> Served:
    """What serves `model`, which was loaded for `view`: both belong to the engine from now on."""
    if isinstance(model, Predictor):
        return Serving.over(view, model)
    assert isinstance(view, GraphView)  # a ranking is bound to nothing else
    return RankServing.over(view, model)


class Generations:
    """Holds the serving that new batches use. Reading and replacing are atomic, from any thread."""

    def __init__(self, serving: Served) -> None:
        self._serving: Served | None = serving

    def current(self) -> Served:
        """What to serve with. Raises DrainingError after `release`."""
        serving = self._serving
        if serving is None:
            raise DrainingError("the server has stopped")
        return serving

    def replace(self, serving: Served) -> None:
        """From now on `current` returns this one."""
        self._serving = serving

    def release(self) -> None:
        """Lets go of the graph: who keeps a stopped server does not keep its arena."""
        self._serving = None
