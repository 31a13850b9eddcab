"""What is answered when the model cannot be what it should: policy of a task, from `serving.yaml` or a file of its own.

    stale_graph: {bound: 30s, answer: flag}          the graph lies behind: answer and say so, or refuse
    rules:                                           the model cannot run: the first rule that fits answers
      - {name: large, when: {column: amount, above: 1000}, decision: review, probability: 0.5}
      - {name: others, decision: approve}
    rules_on: [failed, shed, late]                   by default failed alone

An answer that a policy gave is marked as such, recorded and counted; where no rule fits, the error stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from graph_transformer.target import Kind, Target
from model_server.errors import (
    DeadlinePassedError,
    GraphUnavailableError,
    NotConfiguredError,
    OverloadedError,
    PredictionFailedError,
    ServerError,
)
from model_server.yaml_file import read_yaml
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.duration import parse_duration_us
from temporal_graph.schema import Column, ColumnKind, Schema, Table

# More than these and the policy is a model of its own, which belongs elsewhere.
RULES_MAX = 64


class Cause(StrEnum):
    """Why the model did not answer."""

    FAILED = "failed"
    SHED = "shed"
    LATE = "late"


CAUSES: dict[type[ServerError], Cause] = {
    PredictionFailedError: Cause.FAILED,
    GraphUnavailableError: Cause.FAILED,
    OverloadedError: Cause.SHED,
    DeadlinePassedError: Cause.LATE,
}
"""The errors that a rule may answer in place of, by the word of the policy."""


def _duration(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("expected a duration such as 30s")  # noqa: TRY004 - pydantic reads ValueError
    return parse_duration_us(value)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StaleGraph(_Part):
    """Beyond `bound` behind its log (microseconds; written as 30s) the graph is stale."""

    bound: Annotated[int, BeforeValidator(_duration), Field(gt=0)]
    answer: Literal["flag", "refuse"]


class When(_Part):
    """A condition on one cell of the row that is asked about; a cell that is null or missing fulfills none."""

    column: str
    above: float | None = None
    below: float | None = None
    equals: bool | int | float | str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.above, self.below, self.equals)) != 1:
            raise ValueError("expected one of above, below and equals")
        return self


class Rule(_Part):
    """Answers rows that fulfill `when`, or without it all that come to it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
    when: When | None = None
    decision: Annotated[str, Field(min_length=1, max_length=64)]
    # Of the yes, for callers that read nothing else; only where the task has one.
    probability: float | None = Field(default=None, gt=0, lt=1)


class DegradedPolicy(_Part):
    """The policy of one task."""

    stale_graph: StaleGraph | None = None
    rules: tuple[Rule, ...] = Field(default=(), max_length=RULES_MAX)
    rules_on: frozenset[Cause] = frozenset({Cause.FAILED})

    @model_validator(mode="after")
    def _reached(self) -> Self:
        names = [rule.name for rule in self.rules]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise ValueError(f"rules[{index}].name: {name!r} stands there twice")
            if index and self.rules[index - 1].when is None:
                raise ValueError(f"rules[{index}] is never reached: the rule before it has no `when`")
        if self.rules and not self.rules_on:
            raise ValueError("rules_on is empty: no rule would ever answer")
        return self

    def beside_another(self) -> Self:
        """The policy of a model whose failures another one answers: rules are left what that one cannot, the late."""
        late = self.rules_on & {Cause.LATE}
        return self.model_copy(update={"rules": self.rules if late else (), "rules_on": late})


@dataclass(frozen=True, slots=True)
class Misfit:
    """Where a policy does not fit its task: the path within the policy, and what was expected."""

    path: str
    message: str


def load_policy(path: Path) -> DegradedPolicy:
    """Reads the policy of a server with one task. Raises NotConfiguredError with the path of the wrong key."""
    try:
        return DegradedPolicy.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        raise NotConfiguredError(f"{path}: {place + ': ' if place else ''}{first['msg']}") from None


def misfits(policy: DegradedPolicy, target: Target, schema: Schema, *, lag_interval_s: float) -> Iterator[Misfit]:
    """Every place where the policy does not fit the task: columns, their types, and what the task answers.

    A graph is known to be complete only when its updater looks, every `lag_interval_s`; a bound below twice that would
    call graphs stale that are not.
    """
    bound_min_s = 2 * lag_interval_s
    if policy.stale_graph is not None and policy.stale_graph.bound < bound_min_s * 1e6:
        yield Misfit(
            "stale_graph.bound",
            f"at least {bound_min_s:g}s expected: twice as long as between two looks of the updater "
            "(NOWGRAPH_UPDATER_LAG_INTERVAL_S, told to the server as NOWGRAPH_SERVER_LAG_INTERVAL_S)",
        )
    if policy.rules and target.kind is Kind.RANKING:
        yield Misfit("rules", "a ranking answers lists, and a rule has none: leave the rules out")
        return
    table = schema.table(target.table)
    for index, rule in enumerate(policy.rules):
        path = f"rules[{index}]"
        if rule.probability is not None and target.kind is not Kind.BINARY:
            yield Misfit(f"{path}.probability", f"the task is a {target.kind.value}: only a binary one has it")
        if rule.when is not None:
            yield from _misfits_of(rule.when, f"{path}.when", target, table)


def check_policy(policy: DegradedPolicy, target: Target, schema: Schema, *, lag_interval_s: float) -> DegradedPolicy:
    """The policy, which fits the task. Raises NotConfiguredError for the first place where it does not."""
    for misfit in misfits(policy, target, schema, lag_interval_s=lag_interval_s):
        raise NotConfiguredError(f"degraded.{misfit.path}: {misfit.message}")
    return policy


def first_fit(rules: Sequence[Rule], row: row_event_pb2.RowEvent) -> Rule | None:
    """The first rule that answers this row."""
    return next((rule for rule in rules if rule.when is None or _holds(rule.when, row)), None)


def _misfits_of(when: When, path: str, target: Target, table: Table) -> Iterator[Misfit]:
    if not target.event_level:
        yield Misfit(path, "the task asks about entities, whose requests have no cells: leave `when` out")
        return
    column = next((column for column in table.columns if column.name == when.column), None)
    if column is None:
        names = ", ".join(column.name for column in table.columns)
        yield Misfit(f"{path}.column", f"{table.name!r} has no column {when.column!r}; it has {names}")
    elif column.private:
        yield Misfit(f"{path}.column", f"{when.column!r} is private: its values are hashed")
    elif column.name == target.column:
        yield Misfit(f"{path}.column", f"{when.column!r} is what the task predicts: requests leave it out")
    else:
        yield from _type_misfits(when, path, column)


def _type_misfits(when: When, path: str, column: Column) -> Iterator[Misfit]:
    found = when.equals
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    match column.kind:
        case ColumnKind.NUMERICAL:
            fits, expected = found is None or is_number, "a number"
        case ColumnKind.BOOLEAN:
            fits, expected = isinstance(found, bool), "equals: true or false"
        case ColumnKind.CATEGORICAL:
            fits, expected = (
                isinstance(found, str) or (is_number and not isinstance(found, float)),
                "equals: a category",
            )
        case ColumnKind.TEXT:
            fits, expected = isinstance(found, str), "equals: a text"
        case _:
            fits, expected = False, "a column that is numerical, categorical, boolean or text"
    if not fits:
        key = next(name for name in ("above", "below", "equals") if getattr(when, name) is not None)
        yield Misfit(f"{path}.{key}", f"{when.column!r} is {column.kind.value}: expected {expected}")


def _holds(when: When, row: row_event_pb2.RowEvent) -> bool:
    for cell in row.cells:
        if cell.column != when.column:
            continue
        kind = cell.WhichOneof("value")
        if kind is None or kind == "null":
            return False
        value = getattr(cell, kind)
        if when.above is not None:
            return bool(value > when.above)
        if when.below is not None:
            return bool(value < when.below)
        return bool(value == when.equals)
    return False
