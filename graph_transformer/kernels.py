"""Which kernels PyTorch computes with on a CPU: those that it comes with, none that are made for one shape.

gelu ─► oneDNN: machine code for each shape, the last 1,024 kept     (PyTorch's default)
    └─► PyTorch's own kernel: any shape                              (here)

Batches of neighborhoods are ragged, and hardly two have tensors of the same shapes. So with oneDNN almost every batch
waited until code was made for it, .4 ms a shape, and each shape left some 50 KiB behind until a thousand were kept:
a server's memory grew for as long as its batches kept changing.
"""

from __future__ import annotations

import torch


def use_kernels_for_any_shape() -> None:
    """Keeps oneDNN out of what PyTorch computes from now on, in the whole process: answers move by 1e-6 at most.

    Of what our models compute in float32 it has nothing but `gelu`; matrices are multiplied by MKL either way.
    """
    if torch.backends.mkldnn.enabled:
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]  # the module's own property
