"""2-d convolution weights to 3-d ones."""

from __future__ import annotations

import torch

from slowfast.models.published import StateDict


def inflate_convolutions(state: StateDict, like: StateDict) -> StateDict:
    """Give a time axis to the convolutions that have one in `like`: (out, in, h, w) -> (out, in, t, h, w).

    The image kernel becomes the middle tap, the others 0, so that a video of one repeated frame gives exactly what
    the image gave at every time. (Spreading it over the taps, as I3D does, fails where zero padding is under one.)
    """
    return {
        key: _centred(value, like[key].shape[2]) if key in like and value.dim() == 4 and like[key].dim() == 5 else value
        for key, value in state.items()
    }


def _centred(kernel: torch.Tensor, frames: int) -> torch.Tensor:
    out = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[2:])
    out[:, :, frames // 2] = kernel
    return out
