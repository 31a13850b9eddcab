"""Writes deploy/grafana/dashboards of deploy/grafana/panels; `--check` says whether they are current.

    panels/*.yaml ─► names of what was chosen filled in ─► grid ─► Grafana's JSON ─► dashboards/*.json

Panels stand from left to right in rows of 24 columns, in the order they are written. Every expression is run against a
real Prometheus by tests/deploy/test_grafana.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).resolve().parents[1] / "deploy" / "grafana"
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT, COLUMNS = 8, 8, 24
# What every expression is narrowed by. `All` is .*, which also matches what has no such label.
CHOSEN: Final = {
    "<task>": 'job=~"$job",tenant=~"$tenant",task=~"$task"',
    "<tenant>": 'job=~"$job",tenant=~"$tenant"',
    "<job>": 'job=~"$job"',
    "<rate>": "$__rate_interval",
}
# Of these one number is shown: the newest.
AT_ONCE: Final = ("stat", "table", "bargauge")
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "none"},
    "table": {"showHeader": True, "cellHeight": "sm"},
    "bargauge": {"reduceOptions": {"calcs": ["lastNotNull"]}, "orientation": "horizontal", "displayMode": "basic"},
    "heatmap": {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "Oranges", "scale": "exponential", "exponent": 0.5, "steps": 64},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "tooltip": {"mode": "single", "yHistogram": True},
        "yAxis": {"unit": "s"},
    },
}


def expression(written: str) -> str:
    """PromQL with what the reader chose filled in."""
    for name, text in CHOSEN.items():
        written = written.replace(name, text)
    return written


def panel_json(panel: dict[str, Any], number: int, x: int, y: int) -> dict[str, Any]:
    """A panel as Grafana keeps it."""
    kind = panel.get("kind", "timeseries")
    steps = [{"value": value, "color": color} for value, color in panel.get("steps", [[None, "green"]])]
    defaults: dict[str, Any] = {
        "unit": panel.get("unit", "short"),
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if kind == "timeseries":
        stacked = panel.get("stacked", False)
        defaults["custom"] = {
            "fillOpacity": 30 if stacked else 0,
            "stacking": {"mode": "normal" if stacked else "none"},
            "scaleDistribution": {"type": "log", "log": 10} if panel.get("log") else {"type": "linear"},
            "thresholdsStyle": {"mode": "line" if "steps" in panel else "off"},
        }
    return {
        "id": number,
        "type": kind,
        "title": panel["title"],
        "description": panel.get("about", ""),
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.get("width", WIDTH), "h": panel.get("height", HEIGHT)},
        "targets": [target_json(query, kind, index) for index, query in enumerate(panel["queries"])],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": OPTIONS[kind],
    }


def target_json(query: dict[str, str], kind: str, index: int) -> dict[str, Any]:
    """A query as Grafana keeps it; of histograms with the exemplars."""
    expr = expression(query["expr"])
    return {
        "datasource": DATASOURCE,
        "expr": expr,
        "legendFormat": query.get("legend", "__auto"),
        "refId": chr(ord("A") + index),
        "editorMode": "code",
        "instant" if kind in AT_ONCE else "range": True,
        **({"format": kind} if kind in ("heatmap", "table") else {}),
        **({"exemplar": True} if "_bucket" in expr and kind not in AT_ONCE else {}),
    }


def dashboard_json(dashboard: dict[str, Any]) -> dict[str, Any]:
    """A dashboard as Grafana keeps it: sections one under the other."""
    panels: list[dict[str, Any]] = []
    y = 0
    for section in dashboard["sections"]:
        row = {"id": len(panels) + 1, "type": "row", "title": section["title"], "collapsed": False, "panels": []}
        panels.append({**row, "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}})
        y, x, height = y + 1, 0, 0
        for panel in section["panels"]:
            width = panel.get("width", WIDTH)
            if x + width > COLUMNS:
                x, y, height = 0, y + height, 0
            panels.append(panel_json(panel, len(panels) + 1, x, y))
            x, height = x + width, max(height, panel.get("height", HEIGHT))
        y += height
    return {
        "uid": dashboard["uid"],
        "title": dashboard["title"],
        "description": dashboard["about"],
        "tags": ["nowgraph"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "utc",
        "graphTooltip": 1,
        "links": [
            {"type": "dashboards", "tags": ["nowgraph"], "title": "nowgraph", "asDropdown": True, "keepTime": True,
             "includeVars": True}
        ],
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
                variable_json("job", 'label_values(up{job=~"nowgraph.*"}, job)'),
                variable_json("tenant", expression("label_values(nowgraph_graph_events{<job>}, tenant)")),
                variable_json("task", expression("label_values(nowgraph_model_rows_total{<tenant>}, task)")),
            ]
        },
        "annotations": {"list": []},
        "panels": panels,
    }  # fmt: skip


def variable_json(name: str, query: str) -> dict[str, Any]:
    """A choice at the top of the page, as Grafana keeps it."""
    return {
        "name": name,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "refresh": 2,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def main() -> int:
    """Writes or checks every file; returns the exit code."""
    check, wrong = "--check" in sys.argv[1:], []
    written = set()
    for source in sorted((FOLDER / "panels").glob("*.yaml")):
        dashboard = dashboard_json(yaml.safe_load(source.read_text(encoding="utf-8")))
        text = json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"
        path = FOLDER / "dashboards" / f"{source.stem}.json"
        written.add(path)
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            wrong.append(path.name)
    wrong += [path.name for path in (FOLDER / "dashboards").glob("*.json") if path not in written]
    if wrong:
        print(f"not as scripts/generate_dashboards.py writes them: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
