from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from graph_transformer.predictor import Predictor
from model_server import time_slice
from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from model_server.time_slice import shorten_time_slice
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc


def test_a_thread_and_those_that_it_starts_give_way_sooner() -> None:
    """The slice is in force for both, and for nobody beside them; niceness and policy stay what they were."""
    before_us = shorten_time_slice(0)
    if not before_us:
        pytest.skip("the kernel (before 6.12) or a sandbox knows no slices")
    asked_us = before_us // 2
    seen: list[object] = []

    def started() -> None:
        seen.append(shorten_time_slice(0))

    def asking() -> None:
        as_it_was = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        seen.append(shorten_time_slice(asked_us))
        thread = threading.Thread(target=started)
        thread.start()
        thread.join()
        is_now = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        seen.append(is_now == as_it_was)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asking).result(timeout=10)
    assert seen == [asked_us, asked_us, True]
    assert shorten_time_slice(0) == before_us


def test_where_there_are_no_slices_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose calls are not known here is left alone, and so is a thread that the kernel refuses."""
    before_us = shorten_time_slice(0)
    with monkeypatch.context() as patch:
        patch.setattr("platform.machine", lambda: "unknown")
        assert shorten_time_slice(300) == 0
        patch.setitem(time_slice._CALLS, "unknown", (-1, -1))
        assert shorten_time_slice(300) == 0
    assert shorten_time_slice(0) == before_us


@pytest.mark.integration
def test_a_servers_model_runs_by_it(
    world: Any, payment: Callable[[], service_pb2.ScoreRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting reaches the thread on which batches are scored; the thread that built the server keeps its own."""
    before_us = shorten_time_slice(0)
    asked_us = before_us // 2
    seen: list[int] = []
    predict = Predictor.predict

    def noting(predictor: Predictor, neighborhood: Any) -> Any:
        seen.append(shorten_time_slice(0))
        return predict(predictor, neighborhood)

    monkeypatch.setattr(Predictor, "predict", noting)
    settings = ServerSettings(port=0, metrics_port=0, deadline_default_ms=30_000, time_slice_us=asked_us)
    with BackgroundServer(lambda: world.server(settings)) as running, grpc.insecure_channel(running.target) as channel:
        service_grpc.PredictionServiceStub(channel).Score(payment(), timeout=30)
    assert set(seen) == {asked_us}
    assert shorten_time_slice(0) == before_us
