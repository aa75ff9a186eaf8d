"""RandAugment: notation, ranges of the arguments, and frequencies of the operations."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from slowfast.datasets.photometric import draw_color_jitter
from slowfast.datasets.rand_augment import RandAugment, parse_rand_augment
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
    ],
)
def test_notation(text: str, expected: RandAugment) -> None:
    assert parse_rand_augment(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "augmix-m5",
        "rand-x3",
        "rand-m",
        "rand-m11",
        "rand-n2.5",
        "rand-m7-m8",
        "rand-inc2",
        "rand-w0",
        "rand_m7",
    ],
)
def test_what_it_does_not_know_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="AUG.AA_TYPE.*rand-m7-n4-mstd0.5-inc1"):
        parse_rand_augment(text)


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
