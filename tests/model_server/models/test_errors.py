from __future__ import annotations

from pathlib import Path

from model_server.models.errors import ModelRefused, Reason
from nowgraph.errors import explain


def test_every_reason_is_explained_to_operators(repository: Path) -> None:
    """What a label of the metric means stands in the table of docs/MODELS.md."""
    page = (repository / "docs" / "MODELS.md").read_text(encoding="utf-8")
    assert [reason for reason in Reason if f"`refused_{reason}`" not in page] == []


def test_a_refusal_is_something_to_mend() -> None:
    """A command that meets one says its reason in one line, without a traceback."""
    assert explain(ModelRefused(Reason.CORRUPT, "weights.safetensors has 3 bytes")) == "weights.safetensors has 3 bytes"
