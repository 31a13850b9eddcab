"""Where a model computes: on the processor, or on a GPU that this process sees.

In float32 either way, with PyTorch's defaults: matrices are multiplied in float32 on a GPU too, not in TF32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graph_transformer.errors import DeviceUnavailable

if TYPE_CHECKING:
    import torch

CPU = "cpu"
PATTERN = r"^(cpu|cuda(:[0-9]{1,3})?)$"
"""What a device may be called: cpu, cuda (the first that is seen), cuda:N."""


def find_device(name: str) -> torch.device:
    """Return the device of a name as in `PATTERN`. Raises DeviceUnavailable where it is not there, with what is."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceUnavailable(name, "expected cpu, cuda or cuda:N") from None
    if device.type == CPU:
        return device
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if (device.index or 0) < count:
        return device
    raise DeviceUnavailable(name, f"PyTorch {torch.__version__} sees {_seen(count)}")


def _seen(count: int) -> str:
    import torch

    if torch.version.cuda is None:
        return "none: it was built without CUDA"
    if not count:
        return "none (`nvidia-smi` says whether the machine has one, CUDA_VISIBLE_DEVICES whether it is hidden)"
    return ", ".join(f"cuda:{number} ({torch.cuda.get_device_name(number)})" for number in range(count))
