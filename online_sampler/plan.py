"""What to sample: how many neighbors of which link at which hop, by which strategy.

    YAML or dict -> SamplingPlan (names as written) -> ResolvedPlan (arrays [hops, edge types], names checked)

The fan-outs are written in the field's format, one entry per hop, with overrides per edge type of the schema:

    num_neighbors:
      - hop1: {default: 16, customers.customer_id->transactions.customer_id: 128}
      - hop2: {default: 8, transactions.terminal_id->terminals.terminal_id: 0}
    strategy: most_recent
    half_life: {default: 32}
    node_limit: 4096

A number is the most children taken of one row over that link; a parent by foreign key is one row, followed unless its
number is 0. `strategy` and `half_life` take one value, a mapping like a hop's, or a list of hops like `num_neighbors`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

import yaml

from online_sampler.errors import PlanError

T = TypeVar("T")

HOPS_MAX = 8
# Wider is no neighborhood but a scan: one hub would fill a whole request.
FAN_OUT_MAX = 65_536
# The sampler's table of rows already reached packs a node's index into 20 bits.
NODE_LIMIT_MAX = 2**20 - 1
NODE_LIMIT_DEFAULT = 16_384
HALF_LIFE_DEFAULT = 32.0
HALF_LIFE_MAX = 1e9


ALONE: Mapping[str, Any] = {"num_neighbors": [{"hop1": {"default": 0}}]}
"""The plan, as written, that samples the seed alone."""


class Strategy(StrEnum):
    """Which of the visible children of a row are taken when there are more than asked for."""

    MOST_RECENT = "most_recent"
    UNIFORM = "uniform"
    RECENCY_WEIGHTED = "recency_weighted"


@dataclass(frozen=True, slots=True)
class PerLink(Generic[T]):
    """One value for every edge type: `default`, save where `links` (edge type -> value) says otherwise."""

    default: T
    links: tuple[tuple[str, T], ...] = ()

    def of(self, edge_type: str) -> T:
        """The value for one edge type."""
        return next((value for name, value in self.links if name == edge_type), self.default)


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """Fan-outs, strategies and half-lives, one `PerLink` per hop (all three tuples have the same length)."""

    num_neighbors: tuple[PerLink[int], ...]
    strategy: tuple[PerLink[Strategy], ...]
    half_life: tuple[PerLink[float], ...]
    node_limit: int = NODE_LIMIT_DEFAULT

    @property
    def hops(self) -> int:
        """How many links away from the seed the farthest row can be."""
        return len(self.num_neighbors)

    @classmethod
    def from_yaml(cls, text: str) -> SamplingPlan:
        """Parses the YAML form.

        Raises:
            PlanError: the text is no YAML, or no plan.
        """
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise PlanError("plan", "a YAML mapping", str(error)) from error
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: object) -> SamplingPlan:
        """Parses the form shown in the module's docstring; names of links are checked later, against a schema.

        Raises:
            PlanError: at the first entry that cannot be followed.
        """
        if not isinstance(data, Mapping):
            raise PlanError("plan", "a mapping with num_neighbors", data)
        for name in data:
            if name not in _FIELDS:
                raise PlanError(f"plan.{name}", f"one of {', '.join(_FIELDS)}", name)
        if "num_neighbors" not in data:
            raise PlanError("num_neighbors", f"a list of 1 to {HOPS_MAX} hops", None)
        numbers = _hops("num_neighbors", data["num_neighbors"], _number, required=True)
        hops = len(numbers)
        return cls(
            num_neighbors=numbers,
            strategy=_spread("strategy", data.get("strategy"), _strategy, hops, Strategy.MOST_RECENT),
            half_life=_spread("half_life", data.get("half_life"), _half_life, hops, HALF_LIFE_DEFAULT),
            node_limit=_node_limit(data.get("node_limit", NODE_LIMIT_DEFAULT)),
        )

    def to_dict(self) -> dict[str, Any]:
        """The same plan in the form `from_dict` reads; a checkpoint carries it."""
        return {
            "num_neighbors": _written(self.num_neighbors),
            "strategy": _written(self.strategy),
            "half_life": _written(self.half_life),
            "node_limit": self.node_limit,
        }


_FIELDS = ("num_neighbors", "strategy", "half_life", "node_limit")


def _written(hops: tuple[PerLink[Any], ...]) -> list[dict[str, dict[str, Any]]]:
    def plain(value: Any) -> Any:
        return value.value if isinstance(value, Strategy) else value

    return [
        {f"hop{index + 1}": {"default": plain(hop.default), **{name: plain(value) for name, value in hop.links}}}
        for index, hop in enumerate(hops)
    ]


def _hops(
    path: str, data: object, parse: Callable[[str, object], T], *, required: bool, default: T | None = None
) -> tuple[PerLink[T], ...]:
    """Parses `[{hop1: ...}, {hop2: ...}]`."""
    if not isinstance(data, list) or not 1 <= len(data) <= HOPS_MAX:
        raise PlanError(path, f"a list of 1 to {HOPS_MAX} hops", data)
    hops = []
    for index, entry in enumerate(data):
        name = f"hop{index + 1}"
        if not isinstance(entry, Mapping) or list(entry) != [name]:
            raise PlanError(f"{path}[{index}]", f"a mapping with the one key {name}", entry)
        hops.append(_per_link(f"{path}.{name}", entry[name], parse, required=required, default=default))
    return tuple(hops)


def _per_link(
    path: str, data: object, parse: Callable[[str, object], T], *, required: bool, default: T | None = None
) -> PerLink[T]:
    """Parses one value for all links, or `{default: ..., EDGE_TYPE: ...}`."""
    if not isinstance(data, Mapping):
        return PerLink(parse(path, data))
    links = tuple(
        (str(name), parse(f"{path}.{name}", value)) for name, value in sorted(data.items()) if name != "default"
    )
    if "default" in data:
        return PerLink(parse(f"{path}.default", data["default"]), links)
    if required or default is None:
        raise PlanError(f"{path}.default", "a number for the links that are not named", None)
    return PerLink(default, links)


def _spread(
    path: str, data: object, parse: Callable[[str, object], T], hops: int, default: T
) -> tuple[PerLink[T], ...]:
    """One value or mapping for all hops, or a list with one entry per hop."""
    if data is None:
        return (PerLink(default),) * hops
    if not isinstance(data, list):
        return (_per_link(path, data, parse, required=False, default=default),) * hops
    listed = _hops(path, data, parse, required=False, default=default)
    if len(listed) != hops:
        raise PlanError(path, f"as many hops as num_neighbors has ({hops})", len(listed))
    return listed


def _number(path: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= FAN_OUT_MAX:
        raise PlanError(path, f"an integer from 0 (off) to {FAN_OUT_MAX}", value)
    return value


def _strategy(path: str, value: object) -> Strategy:
    try:
        return Strategy(value)  # type: ignore[arg-type]  # anything else than its strings is refused here
    except ValueError:
        raise PlanError(path, f"one of {', '.join(Strategy)}", value) from None


def _half_life(path: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= HALF_LIFE_MAX:
        raise PlanError(path, f"a number of recency ranks above 0, at most {HALF_LIFE_MAX:g}", value)
    return float(value)


def _node_limit(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= NODE_LIMIT_MAX:
        raise PlanError("node_limit", f"an integer from 1 to {NODE_LIMIT_MAX}", value)
    return value
