from __future__ import annotations

from pathlib import Path

from graph_transformer.finetune.runtime import Runtime


def test_a_training_beside_another_has_folders_of_its_own() -> None:
    """Its states and logs lie in folders of its name; what was off stays off."""
    runtime = Runtime(samplers=3, state=Path("out/state"), logs=Path("out/logs"), resume=True)
    named = runtime.named("floor")
    assert (named.state, named.logs) == (Path("out/state/floor"), Path("out/logs/floor"))
    assert (named.samplers, named.resume) == (3, True)
    assert Runtime().named("floor") == Runtime()
