"""What computes on a GPU; where there is none, PyTorch's fake tensors still say which device each would be on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from graph_transformer import predictor as predicting
from graph_transformer.checkpoint import Checkpoint
from graph_transformer.config import ModelConfig
from graph_transformer.device import find_device
from graph_transformer.encoding.batch import Batch
from graph_transformer.encoding.collate import collate
from graph_transformer.errors import DeviceUnavailable
from graph_transformer.model import build_model
from graph_transformer.predictor import Predictor

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU on this machine")


def test_the_processor_is_always_there() -> None:
    """And is what a name says, without a look for anything else."""
    assert find_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:97", "mps", "tpu", ""])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    """With what there is, or what was expected."""
    with pytest.raises(DeviceUnavailable, match=f"device '{name}'.*(sees|expected cpu, cuda or cuda:N)"):
        find_device(name)


def test_what_is_seen_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two is found by `cuda`, a third is not, and the two are named; so is a PyTorch without CUDA."""
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU {number}")
    assert [str(find_device(name)) for name in ("cuda", "cuda:1")] == ["cuda", "cuda:1"]
    with pytest.raises(DeviceUnavailable, match=r"sees cuda:0 \(GPU 0\), cuda:1 \(GPU 1\)"):
        find_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DeviceUnavailable, match="CUDA_VISIBLE_DEVICES"):
        find_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(DeviceUnavailable, match="without CUDA"):
        find_device("cuda")


def test_equal_bits_are_promised_on_the_processor_alone(
    checkpoint: Checkpoint, payments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fixed shape on a GPU is refused: sums there come in no fixed order."""
    monkeypatch.setattr(predicting, "find_device", torch.device)
    with pytest.raises(DeviceUnavailable, match="fixed shape"):
        Predictor(checkpoint, payments, fixed_shape=True, device="cuda")


def test_batches_go_where_the_model_is(
    checkpoint: Checkpoint, payments: Any, draw_history: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once, to the predictor's device; a batch that is there already is handed on as it is."""
    sent: list[torch.device] = []

    def to(batch: Batch, device: torch.device) -> Batch:
        sent.append(device)
        return batch

    predictor = Predictor(checkpoint, payments, device="cpu")
    batch = collate(draw_history(payments, 2, 4), predictor._encoding)
    assert batch.to("cpu") is batch
    monkeypatch.setattr(Batch, "to", to)
    predictor.predict(draw_history(payments, 3, 4))
    assert sent == [torch.device("cpu")]


@pytest.mark.parametrize("members", [1, 3])
def test_every_tensor_of_a_forward_pass_is_on_the_gpu(
    checkpoint: Checkpoint, payments: Any, draw_history: Callable[..., Any], members: int
) -> None:
    """Of one model and of several that answer together; a tensor left on the processor is an error on any machine."""
    _, encoding = checkpoint.build(payments.schema, payments.strings)
    model = build_model(encoding.layout(), replace(ModelConfig(), members=members), 1).eval()
    batch = collate(draw_history(payments, 7, 12), encoding)
    held = dict(model.named_parameters()) | dict(model.named_buffers())
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.no_grad():
        there = {name: fake.from_tensor(tensor.detach()).to("cuda") for name, tensor in held.items()}
        output = torch.func.functional_call(model, there, (batch.to("cuda"),))
        assert (output.device.type, tuple(output.shape)) == ("cuda", (7, 1))
        with pytest.raises(RuntimeError, match="devices"):
            torch.func.functional_call(model, there, (batch,))


@needs_gpu
def test_a_gpu_answers_as_the_processor_does(
    checkpoint: Checkpoint, payments: Any, draw_history: Callable[..., Any]
) -> None:
    """In float32, within 1e-4 of a logit, small batches and those that are computed by parts."""
    here, there = (Predictor(checkpoint, payments, device=name) for name in ("cpu", "cuda"))
    for seeds in (1, 7, 200):
        asked = draw_history(payments, seeds, 30)
        found = there.predict(asked)
        assert found.logit.dtype == np.float64
        np.testing.assert_allclose(found.logit, here.predict(asked).logit, rtol=0, atol=1e-4)
