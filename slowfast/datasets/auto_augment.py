"""AutoAugment's policy learnt on ImageNet (arXiv 1805.09501, table 9): which operations, how strong."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from slowfast.datasets.rand_augment import MAX_DEVIATION, PAPER, AugmentOp
from slowfast.errors import ConfigError
from slowfast.utils.quote import quoted

NAMES = ("autoaugment", "original")  # the second is timm's
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


def is_auto_augment(aa_type: str) -> bool:
    """Whether AUG.AA_TYPE means this policy."""
    return aa_type.split("-")[0] in NAMES


def parse_auto_augment(aa_type: str) -> AutoAugment:
    """Parse a policy such as `autoaugment` or `original-mstd0.5`; ConfigError for anything else."""
    match = _FORM.fullmatch(aa_type)
    if match is None or float(match[1] or 0.0) > MAX_DEVIATION:
        raise ConfigError(
            f"AUG.AA_TYPE: unknown policy {quoted(aa_type)}. Write autoaugment or autoaugment-mstd<deviation of the "
            "magnitudes>, such as autoaugment-mstd0.5"
        )
    return AutoAugment(float(match[1] or 0.0))
