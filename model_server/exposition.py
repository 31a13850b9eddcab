"""Metrics as text: Prometheus's own form, or OpenMetrics with exemplars.

family ─► # HELP, # TYPE ─► name{label="value"} number [# {trace_id="..."} number time] ─► ... ─► # EOF

prometheus_client writes the same, byte for byte, five times slower: it looks at each character of names that may not be
valid. Ours are, and while text is written the event loop waits for Python's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

_number: Callable[[float], str] = floatToGoString
# As the older form calls what OpenMetrics has another word for.
_OLDER = {"counter": ("_total", "counter"), "info": ("_info", "gauge"), "unknown": ("", "untyped")}


def family_lines(family: Metric, *, openmetrics: bool) -> Iterator[str]:
    """The lines of a family. When a child was made is left out: it would double the number of series."""
    name, kind, text = family.name, family.type, family.documentation.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        text = text.replace('"', r"\"")
    else:
        suffix, kind = _OLDER.get(kind, ("", kind))
        name += suffix
    yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
    if openmetrics and family.unit:
        yield f"# UNIT {name} {family.unit}\n"
    created = f"{family.name}_created"
    for sample in family.samples:
        if sample.name == created:
            continue
        tail = _exemplar(sample.exemplar) if openmetrics and sample.exemplar else ""
        labels = f"{{{_labels(sample.labels)}}}" if sample.labels else ""
        yield f"{sample.name}{labels} {_number(sample.value)}{tail}\n"


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join([f'{name}="{_escaped(value)}"' for name, value in sorted(labels.items())])


def _escaped(value: str) -> str:
    if "\\" in value or "\n" in value or '"' in value:
        return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return value


def _exemplar(exemplar: Exemplar) -> str:
    time = "" if exemplar.timestamp is None else f" {exemplar.timestamp}"
    return f" # {{{_labels(exemplar.labels)}}} {_number(exemplar.value)}{time}"
