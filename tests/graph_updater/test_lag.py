"""The lag is what the log has beyond the graph, and a silent broker stops nobody."""

from __future__ import annotations

from graph_updater.lag import LagWatch
from graph_updater.metrics import UpdaterMetrics
from graph_updater.settings import UpdaterSettings
from stream.errors import SourceError

SETTINGS = UpdaterSettings(behind_enter_records=100, behind_leave_records=10, lag_interval_s=5.0)


class _Log:
    """A log whose ends are set by the test; asked for them it answers, or says that the broker does not."""

    def __init__(self, positions: dict[tuple[str, int], int], ends: dict[tuple[str, int], int]) -> None:
        self.positions = positions
        self.ends = ends
        self.silent = False

    def end_positions(self) -> dict[tuple[str, int], int]:
        if self.silent:
            raise SourceError("no answer")
        return dict(self.ends)


def test_lag_counts_from_the_graph_or_from_where_the_source_began() -> None:
    """An empty partition whose log begins at 500 is not 500 behind; one half applied is behind by the other half."""
    log = _Log({("a", 0): 0, ("a", 1): 500}, {("a", 0): 80, ("a", 1): 500})
    metrics = UpdaterMetrics()
    watch = LagWatch(lambda: {("a", 0): 40}, [log], SETTINGS, metrics)
    watch.look(now_s=0.0)
    value = metrics.registry.get_sample_value
    assert value("nowgraph_lag_records", {"topic": "a", "partition": "0"}) == 40
    assert value("nowgraph_lag_records", {"topic": "a", "partition": "1"}) == 0


def test_behind_has_two_thresholds_and_the_broker_is_asked_only_now_and_then() -> None:
    """On at 100, off at 10, as it was in between; a look before its time asks nobody."""
    log = _Log({("a", 0): 0}, {("a", 0): 100})
    applied = {("a", 0): 0}
    watch = LagWatch(lambda: applied, [log], SETTINGS, UpdaterMetrics())
    seen = []
    for number, at in enumerate((0, 50, 89, 90, 50)):
        applied["a", 0] = at
        watch.look(now_s=number * 5.0 + 1)
        seen.append(watch.behind)
    assert seen == [True, True, True, False, False]
    applied["a", 0] = 0
    watch.look(now_s=21.1)
    assert not watch.behind
    watch.look(now_s=26.1)
    assert watch.behind


def test_caught_up_means_the_end_that_was_there_at_first() -> None:
    """Unknown before the first look; what arrives later does not move the goal."""
    log = _Log({("a", 0): 0}, {("a", 0): 30})
    applied: dict[tuple[str, int], int] = {}
    watch = LagWatch(lambda: applied, [log], SETTINGS, UpdaterMetrics())
    assert not watch.caught_up()
    watch.look(now_s=1.0)
    log.ends["a", 0] = 1000
    watch.look(now_s=10.0)
    applied["a", 0] = 29
    assert not watch.caught_up()
    applied["a", 0] = 30
    assert watch.caught_up()


def test_a_look_anew_moves_the_goal_and_is_due_at_once() -> None:
    """What came since the first look counts then; until the log has answered, nobody has caught up."""
    log = _Log({("a", 0): 0}, {("a", 0): 30})
    applied = {("a", 0): 30}
    watch = LagWatch(lambda: applied, [log], SETTINGS, UpdaterMetrics())
    watch.look(now_s=1.0)
    assert watch.caught_up()
    log.ends["a", 0], log.silent = 40, True
    watch.look_anew()
    watch.look(now_s=1.1)
    assert not watch.caught_up()
    log.silent = False
    watch.look(now_s=1.2)
    assert not watch.caught_up()
    applied["a", 0] = 40
    assert watch.caught_up()


def test_a_broker_that_does_not_answer_leaves_the_last_known_lag() -> None:
    """No error, no change, and the next answer counts again."""
    log = _Log({("a", 0): 0}, {("a", 0): 100})
    watch = LagWatch(dict, [log], SETTINGS, UpdaterMetrics())
    watch.look(now_s=1.0)
    log.silent, log.ends = True, {("a", 0): 0}
    watch.look(now_s=10.0)
    assert watch.behind
    log.silent = False
    watch.look(now_s=20.0)
    assert not watch.behind


def test_the_graph_is_complete_up_to_a_look_whose_ends_are_all_applied() -> None:
    """Not while one record is missing; a later look moves it on; a silent broker and a lag leave it where it is."""
    log = _Log({("a", 0): 0, ("a", 1): 0}, {("a", 0): 10, ("a", 1): 5})
    applied = {("a", 0): 10, ("a", 1): 4}
    said: list[int] = []
    clock = iter(range(1_000, 100_000, 1_000))
    watch = LagWatch(
        lambda: applied, [log], SETTINGS, UpdaterMetrics(), complete=said.append, clock_us=lambda: next(clock)
    )
    watch.look(now_s=0.0)
    assert said == []
    applied["a", 1] = 5
    watch.look(now_s=0.1)  # too early to ask the broker, and not needed
    assert said == [1_000]
    watch.look(now_s=5.1)  # a quiet log is complete anew at each look
    assert said == [1_000, 2_000]
    log.silent = True
    watch.look(now_s=10.2)
    assert said == [1_000, 2_000]
    log.silent, log.ends["a", 0] = False, 20
    watch.look(now_s=15.3)
    watch.look(now_s=20.4)
    assert said == [1_000, 2_000]
    applied["a", 0] = 20
    watch.look(now_s=20.5)  # as of the first look that saw the twentieth record to come
    assert said == [1_000, 2_000, 4_000]


def test_without_a_log_nothing_is_said() -> None:
    """There is nothing that the graph could be complete with."""
    said: list[int] = []
    LagWatch(dict, [], SETTINGS, UpdaterMetrics(), complete=said.append).look(now_s=1.0)
    assert said == []


def test_what_waits_is_what_the_last_look_saw_beyond_the_graph() -> None:
    """Unknown before the first look; a partition at its end, or that begins there, does not wait."""
    log = _Log({("a", 0): 0, ("a", 1): 500, ("a", 2): 0}, {("a", 0): 30, ("a", 1): 500, ("a", 2): 10})
    applied = {("a", 2): 10}
    watch = LagWatch(lambda: applied, [log], SETTINGS, UpdaterMetrics())
    assert watch.knows_ends
    assert watch.waiting() is None
    watch.look(now_s=0.0)
    assert watch.waiting() == [("a", 0)]
    applied["a", 0] = 30
    assert watch.waiting() == []
    assert not LagWatch(dict, [], SETTINGS, UpdaterMetrics()).knows_ends


def test_partitions_that_went_to_another_are_not_waited_for() -> None:
    """What the group gave away is neither lag nor missing, and what a look found says nothing of what came."""
    log = _Log({("a", 0): 0, ("a", 1): 0}, {("a", 0): 10, ("a", 1): 5})
    applied = {("a", 0): 0, ("a", 1): 5}
    said: list[int] = []
    clock = iter(range(1_000, 100_000, 1_000))
    metrics = UpdaterMetrics()
    watch = LagWatch(lambda: applied, [log], SETTINGS, metrics, complete=said.append, clock_us=lambda: next(clock))
    watch.look(now_s=0.0)
    log.ends = {("a", 1): 5, ("a", 2): 7}
    applied["a", 2] = 3
    watch.moved()
    assert not watch.caught_up()
    watch.look(now_s=0.1)
    assert not watch.caught_up()
    assert said == []
    applied["a", 2] = 7
    watch.look(now_s=0.2)
    assert watch.caught_up()
    assert said == [2_000]
    value = metrics.registry.get_sample_value
    assert value("nowgraph_lag_records", {"topic": "a", "partition": "0"}) is None
    assert value("nowgraph_lag_records", {"topic": "a", "partition": "2"}) == 4


def test_a_log_that_ends_before_what_is_applied_is_not_caught_up_with() -> None:
    """A topic made anew under the same name: what the graph holds is not what that log held."""
    log = _Log({("a", 0): 10}, {("a", 0): 4})
    said: list[int] = []
    watch = LagWatch(lambda: {("a", 0): 10}, [log], SETTINGS, UpdaterMetrics(), complete=said.append)
    watch.look(now_s=0.0)
    assert (watch.caught_up(), watch.waiting(), said) == (False, None, [])
