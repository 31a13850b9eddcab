from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from graph_transformer.target import Kind, Ranked, Target
from model_server.degraded import CAUSES, Cause, DegradedPolicy, check_policy, first_fit, load_policy, misfits
from model_server.errors import NotConfiguredError
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.schema import Schema

FRAUD = Target(Kind.BINARY, "transactions", event_level=True, column="tx_fraud")
SPEND = Target(Kind.REGRESSION, "customers", event_level=False)
LISTS = Target(Kind.RANKING, "customers", event_level=False, ranked=Ranked("a", "b", "c", "d", 10))


def policy_of(*rules: dict[str, Any], **more: Any) -> DegradedPolicy:
    """A policy with these rules."""
    return DegradedPolicy.model_validate({"rules": list(rules), **more})


def rule(name: str = "r", **when: Any) -> dict[str, Any]:
    """A rule that says review, on a condition if one is given."""
    return {"name": name, "decision": "review", **({"when": when} if when else {})}


def row(**cells: Any) -> row_event_pb2.RowEvent:
    """A payment with these cells."""
    event = row_event_pb2.RowEvent(table="transactions")
    for column, value in cells.items():
        if value is None:
            event.cells.add(column=column, null=row_event_pb2.NULL_VALUE_UNSPECIFIED)
        elif isinstance(value, bool):
            event.cells.add(column=column, boolean=value)
        elif isinstance(value, str):
            event.cells.add(column=column, text=value)
        elif isinstance(value, int):
            event.cells.add(column=column, integer=value)
        else:
            event.cells.add(column=column, number=value)
    return event


@pytest.mark.parametrize(
    ("when", "fits", "not_quite"),
    [
        ({"above": 1000}, 1000.01, 1000.0),
        ({"below": 5}, 4, 5),
        ({"equals": 7}, 7.0, 8),
    ],
)
def test_a_condition_holds_on_one_side_of_its_bound(when: dict[str, Any], fits: Any, not_quite: Any) -> None:
    """The bound itself is neither above nor below; null and a cell that is not there fulfill nothing."""
    rules = policy_of(rule(column="tx_amount", **when)).rules
    assert first_fit(rules, row(tx_amount=fits)) is rules[0]
    assert first_fit(rules, row(tx_amount=not_quite)) is None
    assert first_fit(rules, row(tx_amount=None)) is None
    assert first_fit(rules, row(note="x")) is None


def test_texts_and_booleans_are_equal_or_not() -> None:
    """A category by its text, a boolean by its value: false is a value like any other."""
    rules = policy_of(rule("web", column="channel", equals="web"), rule("off", column="online", equals=False)).rules
    assert [first_fit(rules, row(channel=text)) for text in ("web", "shop")] == [rules[0], None]
    assert [first_fit(rules, row(online=value)) for value in (True, False)] == [None, rules[1]]


def test_the_first_rule_that_fits_answers() -> None:
    """In the order of the policy; one without a condition takes the rest."""
    rules = policy_of(rule("large", column="tx_amount", above=100), rule("others")).rules
    assert first_fit(rules, row(tx_amount=101.0)) is rules[0]
    assert first_fit(rules, row(tx_amount=100.0)) is rules[1]


@pytest.mark.parametrize(
    ("target", "wrong", "path", "says"),
    [
        (FRAUD, rule(column="amount", above=1), "rules[0].when.column", "no column 'amount'; it has tx_amount"),
        (FRAUD, rule(column="card_number", equals="4"), "rules[0].when.column", "private"),
        (FRAUD, rule(column="tx_fraud", equals=True), "rules[0].when.column", "what the task predicts"),
        (FRAUD, rule(column="tx_amount", equals="much"), "rules[0].when.equals", "numerical: expected a number"),
        (FRAUD, rule(column="channel", above=1), "rules[0].when.above", "categorical: expected equals"),
        (FRAUD, rule(column="online", equals=1), "rules[0].when.equals", "boolean: expected equals: true or false"),
        (FRAUD, rule(column="face", equals=1), "rules[0].when.equals", "embedding: expected a column that is"),
        (SPEND, rule(column="city", equals="x"), "rules[0].when", "entities"),
        (SPEND, {**rule(), "probability": 0.5}, "rules[0].probability", "regression"),
        (LISTS, rule(), "rules", "a ranking answers lists"),
    ],
)
def test_a_policy_fits_its_task_or_is_refused(
    schema: Schema, target: Target, wrong: dict[str, Any], path: str, says: str
) -> None:
    """Unknown columns, wrong types, answers that the task does not have: by the path of the key."""
    (found,) = misfits(policy_of(wrong), target, schema, lag_interval_s=5.0)
    assert found.path == path
    assert says in found.message
    with pytest.raises(NotConfiguredError, match=r"degraded\.rules"):
        check_policy(policy_of(wrong), target, schema, lag_interval_s=5.0)


def test_what_fits_is_taken(schema: Schema) -> None:
    """One of each type, for rows; without conditions, for entities."""
    fits = policy_of(
        {**rule("a", column="tx_amount", above=1), "probability": 0.9},
        rule("b", column="channel", equals="web"),
        rule("c", column="online", equals=False),
        rule("d", column="note", equals="x"),
        rule("e"),
    )
    assert check_policy(fits, FRAUD, schema, lag_interval_s=5.0) is fits
    assert list(misfits(policy_of(rule()), SPEND, schema, lag_interval_s=5.0)) == []
    assert list(misfits(DegradedPolicy(), LISTS, schema, lag_interval_s=5.0)) == []


def test_a_bound_that_no_updater_can_keep_is_refused(schema: Schema) -> None:
    """Twice the time between two looks of the updater is enough; less would call graphs stale that are fresh."""
    policy = DegradedPolicy.model_validate({"stale_graph": {"bound": "10s", "answer": "flag"}})
    for target in (FRAUD, LISTS):
        assert check_policy(policy, target, schema, lag_interval_s=5.0) is policy
        with pytest.raises(NotConfiguredError, match=r"degraded\.stale_graph\.bound: at least 10\.2s expected"):
            check_policy(policy, target, schema, lag_interval_s=5.1)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"rules": [rule("a"), rule("b")]}, "rules[1] is never reached"),
        ({"rules": [rule("a", column="x", above=1), rule("a")]}, "'a' stands there twice"),
        ({"rules": [rule(column="x")]}, "expected one of above, below and equals"),
        ({"rules": [rule(column="x", above=1, below=2)]}, "expected one of above, below and equals"),
        ({"rules": [{**rule(), "probability": 1}]}, "less than 1"),
        ({"rules": [rule()], "rules_on": []}, "rules_on is empty"),
        ({"rules_on": ["tired"]}, "'failed', 'shed' or 'late'"),
        ({"stale_graph": {"bound": "soon", "answer": "flag"}}, "expected a duration such as"),
        ({"stale_graph": {"bound": "0s", "answer": "flag"}}, "greater than 0"),
        ({"stale_graph": {"bound": "5s", "answer": "maybe"}}, "'flag' or 'refuse'"),
        ({"rule": []}, "Extra inputs"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(wrong: dict[str, Any], says: str) -> None:
    """Before any schema is looked at."""
    with pytest.raises(ValidationError) as error:
        DegradedPolicy.model_validate(wrong)
    assert says in str(error.value)


def test_a_file_of_its_own(tmp_path: Path) -> None:
    """A server with one task reads it; what is wrong is named by file and key."""
    path = tmp_path / "degraded.yaml"
    path.write_text("{stale_graph: {bound: 30s, answer: refuse}, rules_on: [failed, late]}")
    policy = load_policy(path)
    assert policy.stale_graph is not None
    assert policy.stale_graph.bound == 30_000_000
    assert policy.rules_on == {Cause.FAILED, Cause.LATE}
    path.write_text("{stale_graph: {bound: 30, answer: refuse}}")
    with pytest.raises(NotConfiguredError, match=r"degraded\.yaml: stale_graph\.bound: .*duration"):
        load_policy(path)
    path.write_text("{")
    with pytest.raises(NotConfiguredError, match=r"degraded\.yaml: not YAML, line 1"):
        load_policy(path)
    with pytest.raises(NotConfiguredError, match=r"none\.yaml: No such file"):
        load_policy(tmp_path / "none.yaml")


def test_a_canary_leaves_its_failures_to_the_live_model() -> None:
    """Only what is too late for that is a rule's; the bound on the graph is the same."""
    stale = {"bound": "30s", "answer": "flag"}
    both = policy_of(rule(), rules_on=["failed", "late"], stale_graph=stale).beside_another()
    assert (len(both.rules), both.rules_on) == (1, {Cause.LATE})
    failed = policy_of(rule(), stale_graph=stale).beside_another()
    assert failed.rules == ()
    assert failed.stale_graph is not None


def test_every_cause_has_its_error() -> None:
    """A word of the policy that no error stands for would promise nothing."""
    assert set(CAUSES.values()) == set(Cause)
