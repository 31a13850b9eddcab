from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.load.scenario import SCENARIOS, Scenario, load_scenario

GOOD = """
version: 1
name: mine
about: mine
seconds: 5
arrivals: {kind: constant, rate: 10}
calls: {Score: 1}
"""


def test_every_scenario_is_one() -> None:
    """Every file of loadtests/scenarios can be run, under its own name."""
    found = {path.stem: load_scenario(path) for path in SCENARIOS.glob("*.yaml")}
    assert {"score", "rank", "mixed", "spike", "ramp", "soak", "steps"} <= set(found)
    assert [name for name, scenario in found.items() if scenario.name != name] == []
    assert load_scenario(Path("score")) == found["score"]


def test_a_file_says_what_is_tested(tmp_path: Path) -> None:
    """What the file leaves out has a default that is safe: nothing may be dropped, few may fail."""
    (tmp_path / "mine.yaml").write_text(GOOD)
    scenario = load_scenario(tmp_path / "mine.yaml")
    assert isinstance(scenario, Scenario)
    assert scenario.objectives.dropped_ratio == 0
    assert scenario.objectives.error_ratio == 0.001


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("seconds: 5", "seconds: -5"), "seconds"),
        (("rate: 10", "rate: ten"), "arrivals.constant.rate"),
        (("Score: 1", "Scor: 1"), "calls"),
        (("about: mine", "abuot: mine"), "abuot"),
        (("kind: constant, rate: 10", "kind: spike, base: 1, peak: 2, start_s: 4, lasts_s: 2"), "spike must end"),
        (("seconds: 5", "seconds: 5\nreplace_at_s: 2"), "several workers"),
        (("version: 1", "version: 1: 2"), "mine.yaml"),
    ],
)
def test_a_wrong_file_names_the_key(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    """Before anything is started."""
    (tmp_path / "mine.yaml").write_text(GOOD.replace(*change))
    with pytest.raises(ValueError, match=words):
        load_scenario(tmp_path / "mine.yaml")


def test_an_unknown_name_lists_the_known() -> None:
    """A slip of the pen says what there is."""
    with pytest.raises(ValueError, match="mixed, ramp, rank"):
        load_scenario(Path("scor"))
