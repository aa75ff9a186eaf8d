"""Rounding of weights to int8."""

from __future__ import annotations

import pytest
import torch

from slowfast.event_driven.linear_kernels import bounded_int8_weights, int8_weights


@pytest.mark.parametrize("inputs", [1, 7, 8, 147, 2048])
@pytest.mark.parametrize("mean", [0.0, 1.0, -3.0])
def test_bounded_weights_cannot_saturate(inputs: int, mean: float) -> None:
    torch.manual_seed(inputs)
    weight = torch.randn(60, inputs) + mean
    weight[::3] *= torch.rand(20, 1) ** 8 * 100
    weight[7], weight[8] = 0, 1
    found, scale = bounded_int8_weights(weight)
    blocks = torch.nn.functional.pad(found.int(), (0, -inputs % 8)).unflatten(1, (-1, 8))
    for first in (0, 2):
        products = 255 * blocks[..., [first, first + 1, first + 4, first + 5]]
        assert products.clamp_min(0).sum(2).max() <= 2**15 - 1 and products.clamp_max(0).sum(2).min() >= -(2**15)
    assert ((found * scale[:, None] - weight).abs() <= 0.5001 * scale[:, None]).all()
    assert (scale >= int8_weights(weight)[1]).all() and (scale <= 4.1 * int8_weights(weight)[1]).all()
