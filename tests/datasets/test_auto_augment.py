"""AutoAugment's ImageNet policy: frequencies and arguments of the paper's table, and the notation."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from slowfast.datasets.rand_augment import (
    AugmentOp,
    AutoAugment,
    TorchvisionAutoAugment,
    is_auto_augment,
    parse_auto_augment,
)
from slowfast.datasets.transforms import TrainTransform
from slowfast.errors import ConfigError

DRAWS = 20000
# Expected operations a draw: the sum of the probabilities in the paper's table over its 25 pairs.
EXPECTED = {
    "posterize": 0.4 + 0.6 + 0.6 + 0.8 + 0.4,
    "rotate": 0.6 + 0.8 + 0.2 + 0.8 + 0.4 + 0.8,
    "solarize": 0.6 + 0.2 + 0.6 + 0.6 + 0.8 + 0.2 + 0.6,
    "auto_contrast": 0.6 + 0.6,
    "equalize": 0.8 + 0.6 + 0.4 + 0.4 + 0.6 + 1.0 + 0.6 + 0.6 + 0.0 + 0.8 + 1.0 + 1.0 + 0.6 + 0.4 + 1.0 + 0.8 + 0.6,
    "color": 0.4 + 0.6 + 1.0 + 0.8 + 0.4 + 0.6,
    "contrast": 1.0 + 1.0,
    "invert": 0.6 + 0.6 + 0.6,
    "sharpness": 0.4,
    "shear_x": 0.6,
}


@pytest.fixture(scope="module")
def draws() -> list[list[AugmentOp]]:
    rng = np.random.default_rng(0)
    return [AutoAugment().draw(rng) for _ in range(DRAWS)]


def test_operations_come_as_often_as_the_table_says(draws: list[list[AugmentOp]]) -> None:
    counts = Counter(op.name for ops in draws for op in ops)
    assert set(counts) == set(EXPECTED)
    for name, expected in EXPECTED.items():
        assert counts[name] / DRAWS == pytest.approx(expected / 25, abs=0.015)
    assert max(map(len, draws)) == 2 and min(map(len, draws)) == 0


def test_arguments_are_the_paper_s_ranges_at_the_table_s_magnitudes(draws: list[list[AugmentOp]]) -> None:
    values = {name: {round(op.value, 6) for ops in draws for op in ops if op.name == name} for name in EXPECTED}
    assert values["rotate"] == {-27.0, 27.0, -24.0, 24.0, -9.0, 9.0}  # of 30 degrees
    assert values["posterize"] == {4 + bits for bits in (3, 2, 2, 2)}  # magnitudes 8, 7, 6, 5 of 4 to 8 bits
    assert values["solarize"] == {128, 102, 76, 204, 179}  # magnitudes 5, 4, 3, 8, 7 of 256
    assert values["color"] == {0.1, 0.82, 0.46, 1.54}  # 0.1 + 1.8 x 0, 0.4, 0.2, 0.8
    assert values["contrast"] == {1.54} and values["sharpness"] == {1.36}
    assert values["shear_x"] == {-0.15, 0.15}


def test_magnitudes_vary_with_a_deviation() -> None:
    rng = np.random.default_rng(0)
    ops = [op for _ in range(500) for op in AutoAugment(0.5).draw(rng)]
    contrasts = np.array([op.value for op in ops if op.name == "contrast"])
    assert len(set(contrasts)) > 10 and abs(contrasts.mean() - 1.54) < 0.05 and contrasts.max() <= 1.9


def test_torchvision_s_magnitudes_at_every_place_of_the_table() -> None:
    """torchvision.transforms.AutoAugment(IMAGENET) with its 10 bins, written out."""
    rng = np.random.default_rng(0)
    draws = [TorchvisionAutoAugment().draw(rng) for _ in range(DRAWS)]
    values = {name: {round(op.value, 3) for ops in draws for op in ops if op.name == name} for name in EXPECTED}
    assert values["posterize"] == {4, 5, 6}  # bits at magnitudes 8; 7 and 6; 5
    assert values["solarize"] == {113.333, 141.667, 170.0, 28.333, 56.667}  # at 5, 4, 3, 8, 7
    assert values["rotate"] == {-30.0, 30.0, -26.667, 26.667, -10.0, 10.0}  # degrees at 9, 8, 3
    assert values["color"] == {1.0, 0.6, 1.4, 0.2, 1.8, 0.8, 1.2}  # none at 0; at 4, 8, 2
    assert values["contrast"] == {0.2, 1.8} and values["sharpness"] == {0.3, 1.7}
    assert values["shear_x"] == {-0.167, 0.167}
    counts = Counter(op.name for ops in draws for op in ops)
    for name, expected in EXPECTED.items():
        assert counts[name] / DRAWS == pytest.approx(expected / 25, abs=0.015)
    positive = np.mean([op.value > 0 for ops in draws for op in ops if op.name == "rotate"])
    assert positive == pytest.approx(0.5, abs=0.02)


def test_torchvision_s_warps_are_filled_with_black() -> None:
    class Turn(TorchvisionAutoAugment):
        def draw(self, rng: np.random.Generator) -> list[AugmentOp]:
            return [AugmentOp("rotate", 30.0)]

    transform = TrainTransform(
        32, jitter_scales=(32, 32), flip=False, aa_type="autoaugment_torchvision", images=True, fill=(9, 9, 9)
    )
    transform.policy = Turn()
    white = np.full((1, 32, 32, 3), 255, np.uint8)
    clip = transform(white, np.zeros(1, int), np.random.default_rng(0))
    assert (clip[0, 0, 0] == 0).all() and (clip[0, 16, 16] == 255).all()


def test_notation() -> None:
    assert parse_auto_augment("autoaugment_torchvision") == TorchvisionAutoAugment()
    assert parse_auto_augment("autoaugment") == parse_auto_augment("original") == AutoAugment()
    assert parse_auto_augment("original-mstd0.5") == AutoAugment(0.5)
    assert is_auto_augment("autoaugment") and not is_auto_augment("rand-m9") and not is_auto_augment("")
    for wrong in ("autoaugment-m9", "original-mstd", "autoaugment-mstd0.5-mstd1", "autoaugment_torchvision-mstd1"):
        with pytest.raises(ConfigError, match="AUG.AA_TYPE.*autoaugment"):
            parse_auto_augment(wrong)


def test_the_transform_takes_it() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 40, 50, 3), dtype=np.uint8)
    transform = TrainTransform(32, jitter_scales=(32, 40), aa_type="original-mstd0.5")
    assert transform.policy == AutoAugment(0.5)
    clips = [transform(image, np.zeros(1, int), np.random.default_rng(seed)) for seed in range(60)]
    assert all(clip.shape == (1, 32, 32, 3) for clip in clips)
    assert len({clip.tobytes() for clip in clips}) == 60
