from __future__ import annotations

import threading
import time
from itertools import count, islice

import pytest

from graph_transformer.finetune.ahead import AHEAD, Ahead


def alive() -> set[str]:
    """Names of the feed's threads that are running."""
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("finetune-feed")}


@pytest.mark.parametrize("threads", [1, 3])
def test_items_come_in_order_whoever_made_them(threads: int) -> None:
    """However long single items take, the reader gets item n for work n, from the first number asked for on."""

    def made(number: int, work: int) -> tuple[int, int]:
        time.sleep(0.004 * (number % 3))
        return number, work

    with Ahead([made] * threads, count(100), first=7) as ahead:
        assert list(islice(ahead, 20)) == [(7 + n, 100 + n) for n in range(20)]


def test_only_so_many_are_made_ahead() -> None:
    """A reader that does not come leaves a few items ready, one in the hands of each thread, and no more."""
    made: list[int] = []
    with Ahead([lambda number, _: made.append(number)] * 2, count()) as ahead:
        time.sleep(0.2)
        assert len(made) == AHEAD + 2
        next(iter(ahead))
        time.sleep(0.2)
        assert len(made) == AHEAD + 3


def test_threads_end_with_the_context() -> None:
    """Leaving early, with items waiting and without ever reading, leaves no thread behind."""
    with Ahead([lambda number, _: number], count()) as ahead:
        next(iter(ahead))
        assert alive()
    assert not alive()
    with Ahead([lambda number, _: number] * 3, count()):
        pass
    assert not alive()


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_comes_where_its_item_would(threads: int) -> None:
    """Items before a failing one arrive; then its error, not a hang; the work's own errors as well."""

    def made(number: int, work: int) -> float:
        return 1 / work

    with Ahead([made] * threads, iter([1, 2, 0, 4])) as ahead:
        items = iter(ahead)
        assert [next(items), next(items)] == [1.0, 0.5]
        with pytest.raises(ZeroDivisionError):
            next(items)

    def broken() -> object:
        yield 1
        raise KeyError("no more work")

    with Ahead([made] * threads, broken()) as ahead:  # type: ignore[arg-type]
        items = iter(ahead)
        next(items)
        with pytest.raises(KeyError):
            next(items)


def test_waiting_is_measured() -> None:
    """A slow maker makes the reader wait as long as it takes; a slow reader does not wait at all."""

    def slow(number: int, _: int) -> int:
        time.sleep(0.05)
        return number

    with Ahead([slow], count()) as ahead:
        list(islice(ahead, 6))
        assert ahead.waited_s >= 0.25
    with Ahead([lambda number, _: number], count()) as ahead:
        items = iter(ahead)
        next(items)
        before = ahead.waited_s
        for _ in range(4):
            time.sleep(0.05)
            next(items)
        assert ahead.waited_s - before < 0.05
