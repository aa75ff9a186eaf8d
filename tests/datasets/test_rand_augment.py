"""RandAugment and AutoAugment: notation, ranges of the arguments, and frequencies of the operations."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from slowfast.datasets.photometric import draw_color_jitter
from slowfast.datasets.rand_augment import AugmentOp, AutoAugment, RandAugment, TorchvisionAutoAugment, parse_policy
from slowfast.datasets.transforms import TrainTransform
from slowfast.errors import ConfigError

NAMES = {
    *("auto_contrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize_add"),
    *("color", "contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y"),
}
ENHANCEMENTS = ("color", "contrast", "brightness", "sharpness")


def draws(policy: RandAugment, clips: int = 3000) -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    values: dict[str, list[float]] = defaultdict(list)
    for _ in range(clips):
        for op in policy.draw(rng):
            values[op.name].append(op.value)
    return values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rand-m7-n4-mstd0.5-inc1", RandAugment(7, 4, 0.5, True)),
        ("rand-m9-mstd0.5-inc1", RandAugment(9, 2, 0.5, True)),
        ("rand-n3-mmax8.5-inc0", RandAugment(10, 3, 0, False, 8.5)),
        ("rand", RandAugment()),
        ("autoaugment_torchvision", TorchvisionAutoAugment()),
        ("autoaugment", AutoAugment()),
        ("original", AutoAugment()),
        ("original-mstd0.5", AutoAugment(0.5)),
    ],
)
def test_notation(text: str, expected: object) -> None:
    assert parse_policy(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "augmix-m5",
        "rand-x3",
        "rand-m",
        "rand-m11",
        "rand-n2.5",
        "rand-m7-m8",
        "rand-inc2",
        "rand-w0",
        "rand_m7",
        "autoaugment-m9",
        "original-mstd",
        "autoaugment-mstd0.5-mstd1",
        "autoaugment_torchvision-mstd1",
    ],
)
def test_what_it_does_not_know_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="AUG.AA_TYPE.*rand-m<0 to 10>.*autoaugment"):
        parse_policy(text)


def test_every_operation_is_drawn_equally_often() -> None:
    values = draws(RandAugment(7, 4, 0.5, True))
    counts = Counter({name: len(found) for name, found in values.items()})
    assert set(counts) == NAMES
    assert all(abs(count - 400) < 100 for count in counts.values())  # 3000 clips x 4 draws / 15 names / 2


def test_the_same_operation_can_be_drawn_twice() -> None:
    rng = np.random.default_rng(0)
    clips = [[op.name for op in RandAugment(7, 4).draw(rng)] for _ in range(500)]
    assert any(len(set(names)) < len(names) for names in clips)
    assert max(len(names) for names in clips) == 4 and min(len(names) for names in clips) == 0


def test_arguments_at_a_fixed_magnitude() -> None:
    values = draws(RandAugment(magnitude=7, num_ops=4, increasing=True))
    signed = {"rotate": 21.0, "shear_x": 0.21, "shear_y": 0.21, "translate_x": 0.315, "translate_y": 0.315}
    for name, limit in signed.items():
        assert sorted(set(np.round(values[name], 9))) == [-limit, limit]
    for name in ENHANCEMENTS:
        assert sorted(set(np.round(values[name], 9))) == [0.37, 1.63]
    assert set(values["posterize"]) == {2} and set(values["solarize"]) == {256 - 179}
    assert set(values["solarize_add"]) == {77}


def test_arguments_of_the_plain_table() -> None:
    values = draws(RandAugment(magnitude=7, num_ops=4, increasing=False))
    for name in ENHANCEMENTS:
        assert set(np.round(values[name], 9)) == {1.36}
    assert set(values["posterize"]) == {2} and set(values["solarize"]) == {179}


def test_magnitudes_are_normal_and_clipped() -> None:
    wide = np.abs(draws(RandAugment(7, 4, 0.5, True))["rotate"]) / 3
    assert abs(wide.mean() - 7) < 0.1 and abs(wide.std() - 0.5) < 0.1
    assert np.max(np.abs(draws(RandAugment(9, 4, 3.0, True))["rotate"])) == 30
    assert np.max(np.abs(draws(RandAugment(9, 4, 3.0, True, 8.0))["rotate"])) == 24


def test_same_seed_same_draw() -> None:
    policy = RandAugment(7, 4, 0.5, True)
    first, again, other = ([policy.draw(rng) for _ in range(5)] for rng in map(np.random.default_rng, (3, 3, 4)))
    assert first == again != other


def test_color_jitter() -> None:
    rng = np.random.default_rng(0)
    clips = [draw_color_jitter(0.4, rng) for _ in range(300)]
    assert {tuple(sorted(op.name for op in ops)) for ops in clips} == {("brightness", "color", "contrast")}
    assert len({tuple(op.name for op in ops) for ops in clips}) == 6
    factors = np.array([op.value for ops in clips for op in ops])
    assert 0.6 <= factors.min() < 0.62 and 1.38 < factors.max() <= 1.4
    assert min(op.value for _ in range(50) for op in draw_color_jitter(2.0, rng)) >= 0


# ------------------------------------------------------------------ AutoAugment
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
def auto_draws() -> list[list[AugmentOp]]:
    rng = np.random.default_rng(0)
    return [AutoAugment().draw(rng) for _ in range(DRAWS)]


def test_operations_come_as_often_as_the_table_says(auto_draws: list[list[AugmentOp]]) -> None:
    counts = Counter(op.name for ops in auto_draws for op in ops)
    assert set(counts) == set(EXPECTED)
    for name, expected in EXPECTED.items():
        assert counts[name] / DRAWS == pytest.approx(expected / 25, abs=0.015)
    assert max(map(len, auto_draws)) == 2 and min(map(len, auto_draws)) == 0


def test_arguments_are_the_paper_s_ranges_at_the_table_s_magnitudes(auto_draws: list[list[AugmentOp]]) -> None:
    values = {name: {round(op.value, 6) for ops in auto_draws for op in ops if op.name == name} for name in EXPECTED}
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
    auto_draws = [TorchvisionAutoAugment().draw(rng) for _ in range(DRAWS)]
    values = {name: {round(op.value, 3) for ops in auto_draws for op in ops if op.name == name} for name in EXPECTED}
    assert values["posterize"] == {4, 5, 6}  # bits at magnitudes 8; 7 and 6; 5
    assert values["solarize"] == {113.333, 141.667, 170.0, 28.333, 56.667}  # at 5, 4, 3, 8, 7
    assert values["rotate"] == {-30.0, 30.0, -26.667, 26.667, -10.0, 10.0}  # degrees at 9, 8, 3
    assert values["color"] == {1.0, 0.6, 1.4, 0.2, 1.8, 0.8, 1.2}  # none at 0; at 4, 8, 2
    assert values["contrast"] == {0.2, 1.8} and values["sharpness"] == {0.3, 1.7}
    assert values["shear_x"] == {-0.167, 0.167}
    counts = Counter(op.name for ops in auto_draws for op in ops)
    for name, expected in EXPECTED.items():
        assert counts[name] / DRAWS == pytest.approx(expected / 25, abs=0.015)
    positive = np.mean([op.value > 0 for ops in auto_draws for op in ops if op.name == "rotate"])
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


def test_the_transform_takes_a_policy() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 40, 50, 3), dtype=np.uint8)
    transform = TrainTransform(32, jitter_scales=(32, 40), aa_type="original-mstd0.5")
    assert transform.policy == AutoAugment(0.5)
    clips = [transform(image, np.zeros(1, int), np.random.default_rng(seed)) for seed in range(60)]
    assert all(clip.shape == (1, 32, 32, 3) for clip in clips)
    assert len({clip.tobytes() for clip in clips}) == 60
