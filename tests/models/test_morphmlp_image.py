"""MorphMLP for images, and inflation of its weights to the video network."""

from __future__ import annotations

import pytest
import torch

from slowfast.models.morphmlp import MorphMLP
from slowfast.models.morphmlp_image import MorphMLPImage
from slowfast.models.weights import load_weights
from tests.random_weights import randomized

SHAPE = {"layers": (1, 1, 2, 1), "embed_dims": (16, 24, 32, 40), "segment_dims": (4, 4, 8, 2), "num_classes": 7}


@pytest.mark.parametrize("frames", [1, 5, 16])
@pytest.mark.parametrize("bias", [True, False])
def test_the_video_network_of_one_repeated_frame_gives_the_images_logits(frames: int, bias: bool, tmp_path) -> None:
    torch.manual_seed(0)
    image_network = randomized(MorphMLPImage(qkv_bias=bias, **SHAPE))
    video = MorphMLP(num_frames=frames, qkv_bias=bias, **SHAPE).eval()
    load_weights(video, video.adapt_pretrained(image_network.state_dict()), tmp_path)
    image = torch.randn(2, 3, 32, 64)
    with torch.no_grad():
        found = video(image[:, :, None].expand(-1, -1, frames, -1, -1))
        torch.testing.assert_close(found, image_network(image), rtol=1e-4, atol=1e-5)


def test_its_keys_are_the_video_networks_without_time() -> None:
    image, video = MorphMLPImage(**SHAPE).state_dict(), MorphMLP(num_frames=4, **SHAPE).state_dict()
    assert list(image) == [key for key in video if ".t_fc." not in key and ".t_norm1." not in key]


def test_stochastic_depth_rises_over_all_blocks() -> None:
    model = MorphMLPImage(drop_depth_rate=0.4, **SHAPE)
    rates = [block.drop_path.rate for i in range(1, 5) for block in getattr(model, f"blocks{i}")]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
