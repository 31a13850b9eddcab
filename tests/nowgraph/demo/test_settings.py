"""The demo's times are in an order in which nothing is learned from what was not known."""

from __future__ import annotations

from pathlib import Path

import pytest

from nowgraph.demo.settings import DemoSettings

WEEK_US = 7 * 86_400_000_000


@pytest.mark.parametrize("settings", [DemoSettings(), DemoSettings.quick()])
def test_the_past_is_learned_before_the_present_is_scored_and_known_after(settings: DemoSettings) -> None:
    """History, training, live and reports follow each other, and every live payment's label arrives in the end."""
    assert settings.history_us <= settings.train_us < settings.live_us - WEEK_US
    assert settings.on_record_us < settings.live_us < settings.until_us
    assert settings.known_us >= settings.until_us + WEEK_US
    made_until_us = int(settings.generator.start.timestamp()) * 1_000_000 + settings.generator.days * 86_400_000_000
    assert settings.history_us <= int(settings.generator.start.timestamp()) * 1_000_000
    assert made_until_us >= settings.until_us


def test_the_output_folder_is_the_only_thing_into_changes(tmp_path: Path) -> None:
    """`into` moves the files and leaves the run as it was."""
    moved = DemoSettings.quick().into(tmp_path)
    assert moved.output == tmp_path
    assert moved.into(DemoSettings.quick().output) == DemoSettings.quick()
