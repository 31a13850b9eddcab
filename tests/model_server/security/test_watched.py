from __future__ import annotations

from pathlib import Path

import pytest

from model_server.errors import NotConfiguredError
from model_server.security.metrics import SecurityMetrics
from model_server.security.watched import Watched


def number_in(path: Path) -> int:
    """What the tests' files hold."""
    text = path.read_text()
    if not text.isdigit():
        raise NotConfiguredError(f"{path}: no number")
    return int(text)


def replace(path: Path, text: str) -> None:
    """Moves a new file into place."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_the_newest_good_file_is_in_force(tmp_path: Path, security_metrics: SecurityMetrics) -> None:
    """A good one replaces the value, a bad or missing one leaves it, and both are counted once."""
    path = tmp_path / "number"
    path.write_text("1")
    watched = Watched("number", [path], lambda: number_in(path), security_metrics)
    assert not watched.changed()
    assert not watched.refresh()
    replace(path, "2")
    assert watched.changed()
    assert watched.refresh()
    assert (watched.value, watched.version) == (2, 1)
    replace(path, "bad")
    assert not watched.refresh()
    assert not watched.refresh()
    assert (watched.value, watched.version) == (2, 1)
    count = {
        sample.labels["outcome"]: sample.value
        for family in security_metrics.reloads.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    assert count == {"loaded": 1, "refused": 1}
    replace(path, "3")
    assert watched.refresh()
    assert watched.value == 3


def test_an_error_that_nobody_expected_changes_nothing(
    tmp_path: Path, security_metrics: SecurityMetrics, capsys: pytest.CaptureFixture[str]
) -> None:
    """What reads a file may fail in its own words, which might quote it: they are not logged, and the old one stays."""
    path = tmp_path / "number"
    path.write_text("1")
    watched = Watched("number", [path], lambda: int(path.read_text()), security_metrics)
    replace(path, "hushhush")
    assert not watched.refresh()
    assert watched.value == 1
    written = "".join(capsys.readouterr())
    assert "ValueError" in written
    assert "hushhush" not in written


def test_a_link_that_points_elsewhere_is_a_change(tmp_path: Path, security_metrics: SecurityMetrics) -> None:
    """Kubernetes replaces the files of a secret by moving one link."""
    for number in "12":
        (tmp_path / number).write_text(number)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "1")
    watched = Watched("number", [link], lambda: number_in(link), security_metrics)
    (tmp_path / "other").symlink_to(tmp_path / "2")
    (tmp_path / "other").replace(link)
    assert watched.refresh()
    assert watched.value == 2


def test_bad_at_the_start_is_an_error(tmp_path: Path, security_metrics: SecurityMetrics) -> None:
    """There is no older value to stay with."""
    path = tmp_path / "number"
    path.write_text("bad")
    with pytest.raises(NotConfiguredError):
        Watched("number", [path], lambda: number_in(path), security_metrics)


def test_the_disk_is_asked_only_now_and_then(tmp_path: Path, security_metrics: SecurityMetrics) -> None:
    """Within the interval a change is not seen by `changed`; `refresh` sees it all the same."""
    path = tmp_path / "number"
    path.write_text("1")
    watched = Watched("number", [path], lambda: number_in(path), security_metrics, check_s=3600)
    replace(path, "2")
    assert not watched.changed()
    assert watched.refresh()
