"""The rules are valid, fire when they should, name metrics that exist, and each alert tells what to do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from graph_updater.metrics import UpdaterMetrics
from model_server.degraded_answer import DegradedFamilies
from model_server.idempotency import IdempotencyFamilies
from model_server.metrics import Metrics
from model_server.models.metrics import ModelFamilies
from model_server.ranking_metrics import RankFamilies
from model_server.security.metrics import SecurityMetrics
from model_server.worker_endpoints import SupervisorMetrics
from stream.quality.exposition import QualityMetrics

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "deploy" / "prometheus"
TESTS = sorted((FOLDER / "tests").glob("*_test.yaml"))
NAME = re.compile(r"(?<![\w:])nowgraph_\w+")


def rules(file: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / file).read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def keeps_silent(test: dict[str, Any], case: dict[str, Any]) -> bool:
    """Whether a case expects an alert not to fire: at all, or of somebody whose series stand beside the others."""
    expected = case.get("exp_alerts", [])
    somebody = {
        name for name in ("job", "instance", "task", "column") for alert in expected if name in alert["exp_labels"]
    }
    alerted = {alert["exp_labels"][name] for name in somebody for alert in expected}
    present = {
        value
        for series in test["input_series"]
        for name, value in re.findall(r'(\w+)="([^"]*)"', series["series"])
        if name in somebody
    }
    return not expected or bool(present - alerted)


def samples(registry: CollectorRegistry) -> set[str]:
    """Every name that a registry can expose: of families without samples yet, too."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "info": ("_info",)}
    return {family.name + suffix for family in registry.collect() for suffix in suffixes.get(family.type, ("",))}


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("NOWGRAPH_CI"):
            pytest.fail("promtool is missing: .ci/run installs Debian's prometheus")
        pytest.skip("promtool (Debian's prometheus) is not installed")
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "recording_rules.yaml", "alerts.yaml"),
        ("check", "config", "prometheus.yaml"),
        *(("test", "rules", f"tests/{path.name}") for path in TESTS),
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing_wrong(promtool: str, arguments: tuple[str, ...]) -> None:
    """Syntax holds, and every alert fires and stays silent as its tests say."""
    result = subprocess.run([promtool, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_rules_read_metrics_that_the_programs_have() -> None:
    """A metric that was renamed breaks a rule silently; here it does not."""
    recorded = {rule["record"] for rule in rules("recording_rules.yaml")}
    server = Metrics()
    for families in (IdempotencyFamilies, RankFamilies, ModelFamilies, DegradedFamilies):
        server.extension(families)
    SecurityMetrics(server.registry)
    programs = (server, UpdaterMetrics(), SupervisorMetrics(1), QualityMetrics())
    exposed = set().union(*(samples(program.registry) for program in programs))
    for rule in rules("recording_rules.yaml") + rules("alerts.yaml"):
        assert set(NAME.findall(rule["expr"])) <= exposed, rule
        assert set(re.findall(r"\w+:nowgraph_\w+:\w+", rule["expr"])) <= recorded, rule


def test_a_bucket_ends_on_the_objective() -> None:
    """The share of slow scores is read from the bucket of 25 ms: it must exist under the name that rules use."""
    metrics = Metrics()
    metrics.request_seconds.labels("Score").observe(0.001)
    edges = {
        sample.labels["le"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "nowgraph_request_seconds_bucket"
    }
    used = {edge for rule in rules("recording_rules.yaml") for edge in re.findall(r'\ble="([^"]+)"', rule["expr"])}
    assert used
    assert used <= edges


def test_every_alert_is_in_the_runbook_and_tested_both_ways() -> None:
    """An alert that nobody knows how to answer, or that was never seen to fire, is noise."""
    runbook = (REPOSITORY / "docs" / "RUNBOOK.md").read_text(encoding="utf-8")
    anchors = {title.lower() for title in re.findall(r"^## (\w+)$", runbook, flags=re.MULTILINE)}
    tests = [test for path in TESTS for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}
    silent = {case["alertname"] for test in tests for case in test["alert_rule_test"] if keeps_silent(test, case)}
    names = set()
    for rule in rules("alerts.yaml"):
        names.add(rule["alert"])
        assert rule["annotations"]["runbook"].split("#")[1] in anchors, rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket")
    assert fired == names
    assert silent == names
