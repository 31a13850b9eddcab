from __future__ import annotations

from stream.quality.records import Stream, identity, item_identity


def test_keys_of_another_form_are_others() -> None:
    """17 and "17" are different keys, as in the graph; parts do not run into each other; equal ones are equal."""
    assert identity([17]) == identity([17])
    assert len({identity(parts) for parts in ([17], ["17"], ["1", "7"], ["1\x00t7"], [1, 7], [])}) == 6
    assert item_identity([17]) != item_identity(["17"])
    assert 0 <= item_identity(["a"]) < 2**64


def test_streams_have_an_order() -> None:
    """Reports list streams the same way each time."""
    assert min(Stream("", "b", "1"), Stream("", "a", "2")).task == "a"
