from __future__ import annotations

import pytest

from model_server.models.channel import HISTORY_LIMIT, Canary, Channel
from model_server.models.errors import RegistryError


def test_a_canary_is_promoted_in_one_step() -> None:
    """The canary becomes live and is no canary any more: one revision says both."""
    before = Channel.first("aa").with_canary(Canary("bb", 0.1)).with_shadows(["bb", "cc"])
    after = before.promote()
    assert (after.version, after.canary, after.shadows) == ("bb", None, ("cc",))
    assert after.revision == before.revision + 1
    assert [one.version for one in after.history] == ["aa"]


def test_a_rollback_goes_back_as_often_as_there_was_something_before() -> None:
    """Each rollback goes one version back and ends the canary; the first version has none before it."""
    channel = Channel.first("aa").promote("bb").promote("cc").with_canary(Canary("dd", 0.5))
    back = channel.rollback()
    assert (back.version, back.canary) == ("bb", None)
    assert back.rollback().version == "aa"
    with pytest.raises(RegistryError, match="no version was live before aa"):
        back.rollback().rollback()


def test_what_makes_no_sense_is_refused() -> None:
    """The live version is neither canary nor shadow; a share is a share; shadows are few."""
    channel = Channel.first("aa")
    with pytest.raises(RegistryError, match="no canary"):
        channel.promote()
    with pytest.raises(RegistryError, match="live already"):
        channel.promote("aa")
    with pytest.raises(RegistryError, match="live already"):
        channel.with_canary(Canary("aa", 0.1))
    with pytest.raises(RegistryError, match="more than 0"):
        channel.with_canary(Canary("bb", 1.0))
    with pytest.raises(RegistryError, match="promote_after"):
        channel.with_canary(Canary("bb", 0.5, -1))
    with pytest.raises(RegistryError, match="its own shadow"):
        channel.with_shadows(["aa"])
    with pytest.raises(RegistryError, match="at most 4"):
        channel.with_shadows(["bb", "cc", "dd", "ee", "ff"])


def test_a_file_gives_back_what_was_written() -> None:
    """Every part of a channel survives its file; what is no channel says so."""
    channel = Channel.first("aa").promote("bb").with_canary(Canary("cc", 0.25, 100, 0.01)).with_shadows(["dd"])
    assert Channel.from_json(channel.to_json()) == channel
    for text in ("", "[]", "{}", channel.to_json().replace('"format": 1', '"format": 9')):
        with pytest.raises(RegistryError):
            Channel.from_json(text)


def test_history_is_bounded() -> None:
    """A channel that changes for years keeps a small file; the newest are remembered."""
    channel = Channel.first("0")
    for number in range(1, HISTORY_LIMIT + 20):
        channel = channel.promote(str(number))
    assert len(channel.history) == HISTORY_LIMIT
    assert channel.rollback().version == str(HISTORY_LIMIT + 18)
