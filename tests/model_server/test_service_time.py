from __future__ import annotations

import random

import pytest

from model_server.service_time import ServiceTime


def taught(line: tuple[float, float], sizes: list[int], *, noise: float = 0.0) -> ServiceTime:
    """An estimate that has seen batches of these sizes on a line, a share of noise on each, and a slow first one."""
    dice = random.Random(1)
    service = ServiceTime()
    service.observe(1, 5.0)
    for rows in sizes:
        service.observe(rows, (line[0] + line[1] * rows) * (1 + dice.uniform(-noise, noise)))
    return service


def test_nothing_is_known_before_the_second_batch() -> None:
    """The first batch pays for loading: it is no measurement, and until there is one every cost is 0."""
    service = ServiceTime()
    service.observe(1, 5.0)
    assert not service.known
    assert service.cost_s(64) == 0.0
    service.observe(1, 0.004)
    assert service.known
    assert service.cost_s(1) == pytest.approx(0.004)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_base_and_price_are_told_apart(noise: float) -> None:
    """Batches of several sizes give the line they lie on, within a tenth though each is off by up to a fifth."""
    service = taught((0.004, 0.0005), [1, 4, 16, 64] * 40, noise=noise)
    for rows in (1, 8, 64):
        assert service.cost_s(rows) == pytest.approx(0.004 + 0.0005 * rows, rel=0.1)


def test_sizes_all_alike_still_give_their_own_cost() -> None:
    """Where base and price cannot be told apart the size that was seen is priced right, and others within reason."""
    service = taught((0.004, 0.0005), [16] * 50)
    assert service.cost_s(16) == pytest.approx(0.012, rel=0.01)
    assert 0 < service.cost_s(1) < 0.012 < service.cost_s(64)


def test_one_batch_held_up_moves_little() -> None:
    """A single batch that took a hundred times as long changes the forecast by less than half."""
    service = taught((0.004, 0.0005), [1, 4, 16, 64] * 10)
    before_s = service.cost_s(16)
    service.observe(16, before_s * 100)
    assert before_s <= service.cost_s(16) < before_s * 1.5


def test_a_slower_model_is_believed() -> None:
    """After a hundred batches at thrice the price the old one is forgotten; and the other way round."""
    service = taught((0.004, 0.0005), [1, 4, 16, 64] * 10)
    for base_s in (0.012, 0.004):
        for rows in [1, 4, 16, 64] * 25:
            service.observe(rows, base_s + base_s / 8 * rows)
        assert service.cost_s(16) == pytest.approx(base_s * 3, rel=0.15)


def test_rows_within_is_the_inverse_of_cost() -> None:
    """As many rows as fit into a time cost that time; below the base not even one fits."""
    service = taught((0.004, 0.0005), [1, 4, 16, 64] * 10)
    assert service.cost_s(service.rows_within(0.02)) == pytest.approx(0.02)
    assert service.rows_within(0.001) == 0.0
