"""Makes the Prometheus operator's PrometheusRule of the rules in deploy/prometheus: one source, two forms.

deploy/prometheus/{recording_rules,alerts}.yaml ─► deploy/kubernetes/components/monitoring/prometheus_rule.yaml
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
RULES = REPOSITORY / "deploy" / "prometheus"
TARGET = REPOSITORY / "deploy" / "kubernetes" / "components" / "monitoring" / "prometheus_rule.yaml"
HEADER = "# Made by scripts/generate_prometheus_rule.py (make manifests) of deploy/prometheus: edit it there.\n"


def prometheus_rule() -> str:
    """The object as YAML; a group's name says from which file it is, as one object needs each name once."""
    groups: list[dict[str, Any]] = []
    for name in ("recording_rules", "alerts"):
        document = yaml.safe_load((RULES / f"{name}.yaml").read_text(encoding="utf-8"))
        groups += [{**group, "name": f"{group['name']}_{name}"} for group in document["groups"]]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "nowgraph"},
        "spec": {"groups": groups},
    }
    return HEADER + yaml.safe_dump(rule, sort_keys=False, width=120, allow_unicode=True)


def main() -> int:
    """Writes it, or says with --check whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    text = prometheus_rule()
    if not parser.parse_args().check:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    print(f"{TARGET.relative_to(REPOSITORY)}: not what deploy/prometheus says; run: make manifests", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
