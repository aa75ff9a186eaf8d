"""AutoAugment's policy learned on ImageNet (arXiv 1805.09501, table 9), with the magnitudes of timm or torchvision."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from slowfast.datasets.rand_augment import MAX_DEVIATION, PAPER, AugmentOp, signed
from slowfast.errors import ConfigError
from slowfast.utils.quote import quoted

NAMES = ("autoaugment", "original")  # the second is timm's
TORCHVISION = "autoaugment_torchvision"
_FORM = re.compile(rf"(?:{'|'.join(NAMES)})(?:-mstd(\d+(?:\.\d+)?))?")
_SCALE = 10.0  # of the magnitudes

# 25 pairs of (operation, probability, magnitude).
_PAIRS = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("color", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)


@dataclass(frozen=True)
class AutoAugment:
    """Draws one of the 25 pairs; each of its operations is applied with its own probability.

    Magnitudes are those of the table, or normal around them with deviation `magnitude_std`, on a scale of 10.
    """

    magnitude_std: float = 0.0
    fill: ClassVar[None] = None

    def draw(self, rng: np.random.Generator) -> list[AugmentOp]:
        """The operations of one clip, in the order they apply; may be empty."""
        ops = []
        for name, probability, magnitude in _PAIRS[rng.integers(len(_PAIRS))]:
            if rng.random() >= probability:
                continue
            level = min(max(rng.normal(magnitude, self.magnitude_std), 0.0), _SCALE) / _SCALE
            argument = PAPER[name]
            ops.append(AugmentOp(name) if argument is None else AugmentOp(name, argument(level, rng)))
        return ops


def _factor(magnitude: int, rng: np.random.Generator) -> float:
    """Factor of an enhancement: 1 +- up to 0.9."""
    return 1.0 + signed(0.9)(magnitude / 9, rng)


# Operation -> argument at a whole magnitude of 0 to 9, as torchvision.transforms.AutoAugment computes it.
_TORCHVISION: dict[str, Callable[[int, np.random.Generator], float]] = {
    "rotate": lambda magnitude, rng: signed(30.0)(magnitude / 9, rng),
    "shear_x": lambda magnitude, rng: signed(0.3)(magnitude / 9, rng),
    "posterize": lambda magnitude, rng: 8 - round(magnitude / 9 * 4),
    "solarize": lambda magnitude, rng: 255 * (1 - magnitude / 9),
    **dict.fromkeys(("color", "contrast", "sharpness"), _factor),
}


@dataclass(frozen=True)
class TorchvisionAutoAugment:
    """The same pairs with torchvision's magnitudes, random signs and black fill, as evMLP was trained."""

    fill: ClassVar[tuple[int, int, int]] = (0, 0, 0)

    def draw(self, rng: np.random.Generator) -> list[AugmentOp]:
        """Draw the operations of one clip, in the order they apply; may be empty."""
        ops = []
        for name, probability, magnitude in _PAIRS[rng.integers(len(_PAIRS))]:
            if rng.random() < probability:
                argument = _TORCHVISION.get(name)
                ops.append(AugmentOp(name) if argument is None else AugmentOp(name, argument(magnitude, rng)))
        return ops


def is_auto_augment(aa_type: str) -> bool:
    """Return whether AUG.AA_TYPE names this policy, in either form."""
    return aa_type.split("-")[0] in (*NAMES, TORCHVISION)


def parse_auto_augment(aa_type: str) -> AutoAugment | TorchvisionAutoAugment:
    """Return the policy that `autoaugment`, `original-mstd0.5` or `autoaugment_torchvision` names.

    Raises:
        ConfigError: If it names none.
    """
    if aa_type == TORCHVISION:
        return TorchvisionAutoAugment()
    match = _FORM.fullmatch(aa_type)
    if match is None or float(match[1] or 0.0) > MAX_DEVIATION:
        raise ConfigError(
            f"AUG.AA_TYPE: unknown policy {quoted(aa_type)}. Write autoaugment, autoaugment-mstd<deviation of the "
            f"magnitudes>, such as autoaugment-mstd0.5, or {TORCHVISION}"
        )
    return AutoAugment(float(match[1] or 0.0))
