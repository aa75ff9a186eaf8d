"""RandAugment and AutoAugment policies."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from slowfast.config.defaults import check_value

_MAX_MAGNITUDE = 10.0
_APPLY_PROBABILITY = 0.5
TORCHVISION = "autoaugment_torchvision"
_PART = re.compile(r"(mstd|mmax|inc|m|n)(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class AugmentOp:
    """Drawn operation: a name of `GEOMETRIC` in resample.py or of photometric.py, and its argument."""

    name: str
    value: float = 0.0


class AugmentPolicy(Protocol):
    """Policy that draws the augmentation operations of a clip."""

    @property
    def fill(self) -> tuple[int, int, int] | None:
        """Color outside the frame for warps; None for the transform's own."""

    def draw(self, rng: np.random.Generator) -> list[AugmentOp]:
        """Draw the operations of one clip, in the order they are applied; may be empty."""


def parse_policy(aa_type: str) -> AugmentPolicy:
    """Return the policy of AUG.AA_TYPE, such as ``rand-m7-n4-mstd0.5-inc1`` or ``autoaugment-mstd0.5``.

    Raises:
        ConfigError: If it is not a policy.
    """
    check_value("AUG.AA_TYPE", aa_type)
    if aa_type == TORCHVISION:
        return TorchvisionAutoAugment()
    if not aa_type.startswith("rand"):
        return AutoAugment(float(aa_type.partition("-mstd")[2] or 0.0))
    found = {match[1]: match[2] for part in aa_type.split("-") if (match := _PART.fullmatch(part))}
    return RandAugment(
        magnitude=float(found.get("m", _MAX_MAGNITUDE)),
        num_ops=int(found.get("n", 2)),
        magnitude_std=float(found.get("mstd", 0.0)),
        increasing=found.get("inc") == "1",
        magnitude_max=float(found.get("mmax", _MAX_MAGNITUDE)),
    )


# ------------------------------------------------------------------ arguments
def signed(limit: float) -> Callable[[float, np.random.Generator], float]:
    """Return an argument of up to +-limit with a random sign."""
    return lambda level, rng: limit * level * (1.0 if rng.random() < 0.5 else -1.0)


# Argument of an operation for a level in [0, 1]; None if it has no argument.
_Argument = Callable[[float, np.random.Generator], float] | None


def _drawn(name: str, argument: _Argument, level: float, rng: np.random.Generator) -> AugmentOp:
    return AugmentOp(name) if argument is None else AugmentOp(name, argument(level, rng))


_COMMON: dict[str, _Argument] = {
    "auto_contrast": None,
    "equalize": None,
    "invert": None,
    "rotate": signed(30.0),  # degrees
    "solarize_add": lambda level, rng: int(level * 110),  # gray levels
    "shear_x": signed(0.3),
    "shear_y": signed(0.3),
    "translate_x": signed(0.45),  # as a fraction of the frame width
    "translate_y": signed(0.45),  # as a fraction of the frame height
}

# Weaker with a higher magnitude (posterize, solarize), or neutral at half of it (the enhancements).
_PLAIN: dict[str, _Argument] = _COMMON | {
    "posterize": lambda level, rng: int(level * 4),  # bits kept
    "solarize": lambda level, rng: int(level * 256),  # lowest gray level inverted
    **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), lambda level, rng: 0.1 + 1.8 * level),
}

# Always stronger with a higher magnitude.
_INCREASING: dict[str, _Argument] = _COMMON | {
    "posterize": lambda level, rng: 4 - int(level * 4),
    "solarize": lambda level, rng: 256 - int(level * 256),
    **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), lambda level, rng: 1.0 + signed(0.9)(level, rng)),
}

# The ranges of AutoAugment's paper (arXiv 1805.09501, table 6), read from their lower ends: 4 to 8 bits are kept.
_PAPER: dict[str, _Argument] = _PLAIN | {"posterize": lambda level, rng: 4 + int(level * 4)}


# ------------------------------------------------------------------ RandAugment
@dataclass(frozen=True)
class RandAugment:
    """RandAugment (arXiv 1909.13719) as in timm: operations drawn with replacement, each applied with probability 1/2.

    Args:
        magnitude: Mean of the magnitudes, from 0 to 10.
        num_ops: Number of operations.
        magnitude_std: Standard deviation of the magnitudes.
        increasing: Use operations that become stronger with the magnitude.
        magnitude_max: Largest magnitude.
    """

    magnitude: float = 10.0
    num_ops: int = 2
    magnitude_std: float = 0.0
    increasing: bool = False
    magnitude_max: float = _MAX_MAGNITUDE
    fill: ClassVar[None] = None

    def draw(self, rng: np.random.Generator) -> list[AugmentOp]:
        table = list((_INCREASING if self.increasing else _PLAIN).items())
        ops = []
        for choice in rng.integers(len(table), size=self.num_ops):
            if rng.random() >= _APPLY_PROBABILITY:
                continue
            magnitude = rng.normal(self.magnitude, self.magnitude_std)
            level = min(max(magnitude, 0.0), self.magnitude_max) / _MAX_MAGNITUDE
            name, argument = table[choice]
            ops.append(_drawn(name, argument, level, rng))
        return ops


# ------------------------------------------------------------------ AutoAugment
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
    """AutoAugment (arXiv 1805.09501): one of 25 pairs of operations, each applied with its own probability.

    Args:
        magnitude_std: Standard deviation of the magnitudes around those of the table, on a scale of 10.
    """

    magnitude_std: float = 0.0
    fill: ClassVar[None] = None

    def draw(self, rng: np.random.Generator) -> list[AugmentOp]:
        ops = []
        for name, probability, magnitude in _PAIRS[rng.integers(len(_PAIRS))]:
            if rng.random() >= probability:
                continue
            level = min(max(rng.normal(magnitude, self.magnitude_std), 0.0), _MAX_MAGNITUDE) / _MAX_MAGNITUDE
            ops.append(_drawn(name, _PAPER[name], level, rng))
        return ops


def _factor(magnitude: float, rng: np.random.Generator) -> float:
    """Return the factor of an enhancement, 1 +- up to 0.9."""
    return 1.0 + signed(0.9)(magnitude / 9, rng)


# Operation -> argument for an integer magnitude of 0 to 9, as torchvision.transforms.AutoAugment computes it.
_TORCHVISION: dict[str, Callable[[float, np.random.Generator], float]] = {
    "rotate": lambda magnitude, rng: signed(30.0)(magnitude / 9, rng),
    "shear_x": lambda magnitude, rng: signed(0.3)(magnitude / 9, rng),
    "posterize": lambda magnitude, rng: 8 - round(magnitude / 9 * 4),
    "solarize": lambda magnitude, rng: 255 * (1 - magnitude / 9),
    **dict.fromkeys(("color", "contrast", "sharpness"), _factor),
}


@dataclass(frozen=True)
class TorchvisionAutoAugment:
    """AutoAugment with torchvision's magnitudes, random signs and black fill, as evMLP was trained."""

    fill: ClassVar[tuple[int, int, int]] = (0, 0, 0)

    def draw(self, rng: np.random.Generator) -> list[AugmentOp]:
        ops = []
        for name, probability, magnitude in _PAIRS[rng.integers(len(_PAIRS))]:
            if rng.random() < probability:
                ops.append(_drawn(name, _TORCHVISION.get(name), magnitude, rng))
        return ops
