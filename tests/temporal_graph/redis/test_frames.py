from __future__ import annotations

import pytest

from temporal_graph.redis.frames import DELETE, INSERT, Version, openings, pack, sure_opening, unpack

UPSERT = 2


def version(time_us: int, operation: int = UPSERT, **links: bytes) -> Version:
    """A version that sets links, named a, b, ... by number."""
    return Version(time_us, operation, tuple(("ab".index(name), key) for name, key in links.items()))


@pytest.mark.parametrize("time_us", [-(2**63), -1, 0, 2**53 + 1, 2**63 - 1])
def test_frames_come_back_one_after_another(time_us: int) -> None:
    """What was packed is unpacked, times exactly, events and keys byte for byte."""
    packed = [
        (version(time_us, INSERT, a=b"\0{}", b=b""), b"event"),
        (version(7), b""),
        (version(9, b=b"k" * 300), b"x"),
    ]
    assert unpack(b"".join(pack(*each) for each in packed)) == packed
    assert unpack(b"") == []


def test_a_link_needs_one_entry_while_all_versions_name_one_parent() -> None:
    """The earliest; versions that say nothing of the link do not count."""
    versions = [version(30, INSERT, a=b"p"), version(10, a=b"p"), version(5), version(1, DELETE)]
    assert openings(versions, [0]) == {(0, b"p", 10)}


def test_a_link_that_moves_may_open_with_any_version_that_sets_it() -> None:
    """Each version that names a parent gives an entry; null, said or by an insert's silence, closes and gives none."""
    versions = [version(30, INSERT, a=b"p"), version(10, a=b"q"), version(40, a=b""), version(50, INSERT)]
    assert openings(versions, [0, 1]) == {(0, b"p", 30), (0, b"q", 10)}


def test_an_opening_is_sure_only_where_nothing_could_change_it() -> None:
    """One parent in all versions that set the link: the earliest; a delete, a move or a null: the fold knows."""
    plain = [version(30, INSERT, a=b"p"), version(20, b=b"x"), version(40, a=b"p")]
    assert sure_opening(plain, 0, b"p") == 30
    assert sure_opening([*plain, version(50, DELETE)], 0, b"p") is None
    assert sure_opening([*plain, version(50, a=b"q")], 0, b"p") is None
    assert sure_opening([*plain, version(50, INSERT)], 0, b"p") is None
