"""MixUp, CutMix and label smoothing against plain implementations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from slowfast.config.defaults import get_cfg
from slowfast.datasets.mixup import Mixup, smooth_one_hot
from slowfast.errors import ConfigError

CLASSES = 5


def mixup(**changes: Any) -> Mixup:
    arguments = {
        "alpha": 0.8,
        "cutmix_alpha": 1.0,
        "probability": 1.0,
        "switch_probability": 0.5,
        "smoothing": 0.1,
        "num_classes": CLASSES,
    }
    return Mixup(**(arguments | changes))


def batch(count: int, image: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (count, 3, 12, 16) if image else (count, 3, 4, 12, 16)
    values = torch.arange(count, dtype=torch.float32).reshape(-1, *[1] * (len(shape) - 1))
    return values.expand(shape).clone(), torch.arange(count) % CLASSES


def test_smooth_one_hot() -> None:
    soft = smooth_one_hot(torch.tensor([2, 0]), 4, 0.2)
    assert torch.allclose(soft, torch.tensor([[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]]))
    assert torch.equal(smooth_one_hot(torch.tensor([1]), 3, 0.0), torch.tensor([[0.0, 1.0, 0.0]]))
    already = smooth_one_hot(torch.tensor([[0.5, 0.5, 0.0, 0.0]]), 4, 0.2)
    assert torch.allclose(already, torch.tensor([[0.45, 0.45, 0.05, 0.05]]))


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_mixup_blends_a_clip_with_its_mirror_image_in_the_batch(count: int, image: bool) -> None:
    for seed in range(10):
        clips, labels = batch(count, image)
        before = clips.clone()
        mixed, soft = mixup(cutmix_alpha=0.0)(clips, labels, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        rng.random()
        share = rng.beta(0.8, 0.8)
        assert torch.allclose(mixed, before * share + before.flip(0) * (1 - share), atol=1e-5)
        plain = smooth_one_hot(labels, CLASSES, 0.1)
        assert torch.allclose(soft, plain * share + plain.flip(0) * (1 - share), atol=1e-6)
        assert mixed is clips


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_cutmix_pastes_one_box_and_weighs_labels_by_its_area(count: int, image: bool) -> None:
    areas = []
    for seed in range(30):
        clips, labels = batch(count, image)
        before = clips.clone()
        mixed, soft = mixup(alpha=0.0)(clips, labels, np.random.default_rng(seed))
        changed = mixed[0] != before[0]
        if count == 1:
            assert not changed.any() and torch.allclose(soft, smooth_one_hot(labels, CLASSES, 0.1))
            continue
        mask = changed.flatten(0, -3)[0]  # (H, W)
        assert (changed == mask).all()  # the same box in all frames and channels
        assert torch.equal(mixed, torch.where(mask, before.flip(0), before))
        share = 1 - mask.float().mean().item()
        areas.append(1 - share)
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert mask.sum() == rows * columns
        plain = smooth_one_hot(labels, CLASSES, 0.1)
        assert torch.allclose(soft, plain * share + plain.flip(0) * (1 - share), atol=1e-6)
    if count > 1:
        assert max(areas) > 0.4 and min(areas) < 0.1


def test_soft_labels_sum_to_one_and_accept_soft_labels() -> None:
    for seed in range(20):
        clips, labels = batch(5)
        _, from_numbers = mixup()(clips.clone(), labels, np.random.default_rng(seed))
        one_hot = torch.nn.functional.one_hot(labels, CLASSES).float()
        _, from_soft = mixup()(clips.clone(), one_hot, np.random.default_rng(seed))
        assert torch.allclose(from_numbers.sum(1), torch.ones(5)) and torch.allclose(from_numbers, from_soft)


def test_probabilities() -> None:
    kinds = {"none": 0, "blend": 0, "paste": 0}
    for seed in range(400):
        clips, labels = batch(2)
        mixed, _ = mixup(probability=0.6, switch_probability=0.25)(clips, labels, np.random.default_rng(seed))
        values = set(mixed[0].unique().tolist())
        kinds["none" if values == {0.0} else "paste" if values <= {0.0, 1.0} else "blend"] += 1
    assert 130 < kinds["none"] < 200 and 140 < kinds["blend"] < 220 and 35 < kinds["paste"] < 85


def test_same_seed_same_batch() -> None:
    first, again = (mixup()(*batch(5), np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


def test_channels_last_clips_and_half_precision() -> None:
    clips, labels = batch(4)
    last = clips.to(torch.bfloat16).to(memory_format=torch.channels_last_3d)
    mixed, soft = mixup(cutmix_alpha=0.0)(last, labels, np.random.default_rng(0))
    assert mixed.is_contiguous(memory_format=torch.channels_last_3d) and soft.dtype == torch.float32


def test_from_config_and_mistakes() -> None:
    cfg = get_cfg()
    cfg.MODEL.NUM_CLASSES = 7
    assert Mixup.from_config(cfg)(*batch(2), np.random.default_rng(0))[1].shape == (2, 7)
    cfg.MIXUP.ALPHA = cfg.MIXUP.CUTMIX_ALPHA = 0.0
    with pytest.raises(ConfigError, match="MIXUP.ALPHA"):
        Mixup.from_config(cfg)
