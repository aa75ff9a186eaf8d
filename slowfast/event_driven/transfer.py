"""Small tensors between the host's memory and the device's, without the host waiting for the device."""

from __future__ import annotations

from typing import Any

import torch


def to_device(values: list[Any], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Numbers of the host as a tensor on the device; a GPU takes them when it gets there."""
    pinned = device.type == "cuda"  # from other memory the copy would wait
    return torch.tensor(values, dtype=dtype, pin_memory=pinned).to(device, non_blocking=True)


class HostCopy:
    """A copy of a tensor on its way to the host's memory."""

    def __init__(self, tensor: torch.Tensor) -> None:
        on_gpu = tensor.device.type == "cuda"
        self._copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=on_gpu)
        self._copy.copy_(tensor, non_blocking=True)
        self._arrived = torch.cuda.Event() if on_gpu else None
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> torch.Tensor:
        """What has arrived. On a GPU this waits for what the device was given before it, not for what came later."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._copy.clone()  # pinned memory is scarce, and used again
