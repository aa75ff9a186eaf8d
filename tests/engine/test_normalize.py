"""Normalization against the plain formula."""

from __future__ import annotations

import pytest
import torch

from slowfast.engine.forward import normalize

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.mark.parametrize("shape", [(2, 4, 5, 7, 3), (3, 6, 5, 3)])
@pytest.mark.parametrize("reverse", [False, True])
def test_formula_and_channel_order(shape: tuple[int, ...], reverse: bool) -> None:
    clips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = clips.clone()
    out = normalize(clips, MEAN, STD, reverse)
    assert out.dtype == torch.float32 and out.shape == (shape[0], 3, *shape[1:-1])
    for channel in range(3):
        values = clips[..., 2 - channel if reverse else channel]
        expected = (values.double() / 255 - MEAN[channel]) / STD[channel]
        assert torch.allclose(out[:, channel].double(), expected, atol=2e-6)
    assert torch.equal(clips, before)


def test_channels_stay_last_in_memory() -> None:
    video = normalize(torch.zeros(2, 4, 5, 7, 3, dtype=torch.uint8), MEAN, STD)
    image = normalize(torch.zeros(2, 5, 7, 3, dtype=torch.uint8), MEAN, STD)
    assert video.is_contiguous(memory_format=torch.channels_last_3d)
    assert image.is_contiguous(memory_format=torch.channels_last)


def test_views_of_a_larger_array() -> None:
    frames = torch.randint(0, 256, (2, 4, 20, 20, 3), dtype=torch.uint8)
    crop = frames[:, :, 3:11, 5:17]
    assert torch.equal(normalize(crop, MEAN, STD), normalize(crop.contiguous(), MEAN, STD))
