"""`nowgraph models`: push, list, verify, promote, rollback, canary, shadow, as an operator types them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graph_transformer.checkpoint import Checkpoint


@pytest.fixture
def pushed(trained: Callable[[str], Path], run_json: Callable[..., Any], tmp_path: Path) -> Callable[[float], str]:
    """Gives a registry's version of the fraud model with its weights times a factor; the registry is in `tmp_path`."""
    folder = trained("fraud")

    def push(factor: float) -> str:
        other = tmp_path / f"times-{factor}"
        checkpoint = Checkpoint.load(folder)
        weights = {name: tensor * factor for name, tensor in checkpoint.weights.items()}
        replace(checkpoint, weights=weights).save(other)
        (other / "schema.yaml").write_text((folder / "schema.yaml").read_text())
        row = run_json(
            "models", "push", other, "--registry", tmp_path / "registry", "--history", folder / "history",
            "--golden", 8, "--quiet",
        )  # fmt: skip
        assert (row["task"], row["golden"], row["was there"]) == ("fraud", 8, False)
        version: str = row["version"]
        return version

    return push


@pytest.fixture
def models(run_json: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Runs a subcommand on the registry and gives its document."""
    return lambda *arguments: run_json("models", *arguments, "--registry", tmp_path / "registry")


def test_from_push_to_rollback(pushed: Callable[[float], str], models: Callable[..., Any]) -> None:
    """The life of three versions: promoted, a canary that is promoted, shadows, one step back."""
    first, second, third = pushed(1.0), pushed(1.1), pushed(1.2)
    assert models("list")["channels"] == {"fraud": None}
    assert models("promote", "fraud", first)["live"] == first
    assert models("canary", "fraud", second[:6], "--share", 0.05)["canary"] == second
    assert models("canary", "fraud", "--share", 0.5)["share"] == 0.5
    assert models("shadow", "fraud", third)["shadows"] == [third]
    after = models("promote", "fraud")
    assert (after["live"], after["canary"], after["shadows"], after["before"]) == (second, None, [third], [first])
    roles = {row["version"]: row["live"] for row in models("list", "fraud")["models"]}
    assert roles == {first: "before", second: "live", third: "shadow"}
    assert models("rollback", "fraud")["live"] == first
    assert models("shadow", "fraud", "--off")["shadows"] == []
    assert models("canary", "fraud", "--off")["canary"] is None
    assert models("verify", "fraud", third)["golden"] == 8


def test_what_cannot_be_served_is_not_pointed_at(
    pushed: Callable[[float], str], models: Callable[..., Any], run_command: Callable[..., Any], tmp_path: Path
) -> None:
    """A spoiled version is refused by verify and by every command that would give it to servers, with its reason."""
    first, second = pushed(1.0), pushed(1.1)
    models("promote", "fraud", first)
    weights = tmp_path / "registry" / "fraud" / second / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-3])
    for arguments in (
        ("verify", "fraud", second),
        ("promote", "fraud", second),
        ("canary", "fraud", second, "--share", 0.1),
        ("shadow", "fraud", second),
    ):
        result = run_command("models", *arguments, "--registry", tmp_path / "registry", exit_code=2)
        assert "weights.safetensors has" in result.stderr
    assert models("list")["channels"]["fraud"]["live"] == first


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("promote", "fraud"), "name the version"),
        (("rollback", "fraud"), "promote` makes it"),
        (("canary", "fraud"), "either --share"),
        (("canary", "fraud", "--share", "0.1", "--off"), "either --share"),
        (("shadow", "fraud"), "either versions"),
        (("promote", "fraud", "zz"), "begins with 'zz'"),
    ],
)
def test_what_lacks_is_said(
    run_command: Callable[..., Any], tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    """One line on standard error and exit code 2, never a traceback."""
    result = run_command("models", *arguments, "--registry", tmp_path / "registry", exit_code=2)
    assert said in result.stderr


def test_golden_requests_need_a_graph(
    trained: Callable[[str], Path], run_command: Callable[..., Any], run_json: Callable[..., Any], tmp_path: Path
) -> None:
    """Without one they are left out only where that is said, and then the version says so."""
    folder = trained("spend")
    result = run_command("models", "push", folder, "--registry", tmp_path / "registry", exit_code=2)
    assert "--without-golden" in result.stderr
    row = run_json("models", "push", folder, "--registry", tmp_path / "registry", "--without-golden")
    assert (row["golden"], row["kind"]) == (0, "regression")
    assert run_json("models", "push", folder, "--registry", tmp_path / "registry", "--without-golden")["was there"]
