"""The reader's side of the live graph: a plan and seeds with their cut-offs in, neighborhoods out.

SamplingPlan + GraphView -> Sampler; seeds + cut-offs -> Sampler -> Neighborhood
"""

from online_sampler.errors import PlanError, SamplerError, SeedError
from online_sampler.neighborhood import Neighborhood, TableColumns
from online_sampler.plan import PerLink, SamplingPlan, Strategy
from online_sampler.sampler import Sampler

__all__ = [
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
