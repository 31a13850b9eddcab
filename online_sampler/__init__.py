"""The reader's side of the live graph: a plan and seeds with their cut-offs in, neighborhoods out.

SamplingPlan + GraphView -> Sampler; seeds + cut-offs -> Sampler -> Neighborhood
links + GraphView -> CoVisitWalk; users + cut-offs -> CoVisitWalk -> Histories -> CoVisits
"""

from online_sampler.co_visits import CoVisits, CoVisitWalk, Degrees, Histories
from online_sampler.errors import PlanError, SamplerError, SeedError
from online_sampler.neighborhood import Neighborhood, TableColumns
from online_sampler.plan import PerLink, SamplingPlan, Strategy
from online_sampler.sampler import Sampler

__all__ = [
    "CoVisitWalk",
    "CoVisits",
    "Degrees",
    "Histories",
    "Neighborhood",
    "PerLink",
    "PlanError",
    "Sampler",
    "SamplerError",
    "SamplingPlan",
    "SeedError",
    "Strategy",
    "TableColumns",
]
