"""RandAugment (arXiv 1909.13719) in timm's notation: which operations, how strong. Nothing here touches a pixel.

The operations, their ranges and the "increasing" variants are those of timm and of SlowFast, which shares its table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from slowfast.errors import ConfigError
from slowfast.utils.quote import quoted

_MAX_MAGNITUDE = 10.0
MAX_DEVIATION = 100.0  # of the magnitudes
_APPLY_PROBABILITY = 0.5
_PART = re.compile(r"(mstd|mmax|inc|m|n)(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class AugmentOp:
    """One drawn operation: a name of `GEOMETRIC` (see warp.py) or of photometric.py, and its argument."""

    name: str
    value: float = 0.0


def signed(limit: float) -> Callable[[float, np.random.Generator], float]:
    """Up to +-limit; the sign is drawn."""
    return lambda level, rng: limit * level * (1.0 if rng.random() < 0.5 else -1.0)


# Name -> argument of a level in [0, 1]; None: the operation has no argument.
_Argument = Callable[[float, np.random.Generator], float] | None

_COMMON: dict[str, _Argument] = {
    "auto_contrast": None,
    "equalize": None,
    "invert": None,
    "rotate": signed(30.0),  # degrees
    "solarize_add": lambda level, rng: int(level * 110),  # grey levels
    "shear_x": signed(0.3),
    "shear_y": signed(0.3),
    "translate_x": signed(0.45),  # of the frame's width
    "translate_y": signed(0.45),  # of the frame's height
}

# Weaker with a higher magnitude (posterize, solarize) or unchanged in its middle (the enhancements).
_PLAIN: dict[str, _Argument] = _COMMON | {
    "posterize": lambda level, rng: int(level * 4),  # bits kept
    "solarize": lambda level, rng: int(level * 256),  # lowest grey level inverted
    **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), lambda level, rng: 0.1 + 1.8 * level),
}

# Always stronger with a higher magnitude.
_INCREASING: dict[str, _Argument] = _COMMON | {
    "posterize": lambda level, rng: 4 - int(level * 4),
    "solarize": lambda level, rng: 256 - int(level * 256),
    **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), lambda level, rng: 1.0 + signed(0.9)(level, rng)),
}

# The ranges of AutoAugment's paper (arXiv 1805.09501, table 6), read from their lower ends: 4 to 8 bits are kept.
PAPER: dict[str, _Argument] = _PLAIN | {"posterize": lambda level, rng: 4 + int(level * 4)}


@dataclass(frozen=True)
class RandAugment:
    """Draws `num_ops` operations with replacement, each applied with probability 1/2.

    Magnitudes are normal (`magnitude`, `magnitude_std`), clipped to [0, magnitude_max] and read on a scale of 10.
    """

    magnitude: float = 10.0
    num_ops: int = 2
    magnitude_std: float = 0.0
    increasing: bool = False
    magnitude_max: float = _MAX_MAGNITUDE
    fill: ClassVar[None] = None

    def draw(self, rng: np.random.Generator) -> list[AugmentOp]:
        """The operations of one clip, in the order they apply; may be empty."""
        table = list((_INCREASING if self.increasing else _PLAIN).items())
        ops = []
        for choice in rng.integers(len(table), size=self.num_ops):
            if rng.random() >= _APPLY_PROBABILITY:
                continue
            magnitude = rng.normal(self.magnitude, self.magnitude_std)
            level = min(max(magnitude, 0.0), self.magnitude_max) / _MAX_MAGNITUDE
            name, argument = table[choice]
            ops.append(AugmentOp(name) if argument is None else AugmentOp(name, argument(level, rng)))
        return ops


def parse_rand_augment(aa_type: str) -> RandAugment:
    """Parse a policy such as `rand-m7-n4-mstd0.5-inc1`; ConfigError for anything else."""
    head, *parts = aa_type.split("-")
    matches = [_PART.fullmatch(part) for part in parts]
    found = {match[1]: match[2] for match in matches if match}
    valid = (
        head == "rand"
        and len(found) == len(parts)  # nothing unknown, nothing twice
        and found.get("inc", "0") in ("0", "1")
        and re.fullmatch(r"[0-9]{1,2}", found.get("n", "2")) is not None
        and all(float(found.get(key, "0")) <= _MAX_MAGNITUDE for key in ("m", "mmax"))
        and float(found.get("mstd", "0")) <= MAX_DEVIATION
    )
    if not valid:
        raise ConfigError(
            f"AUG.AA_TYPE: unknown policy {quoted(aa_type)}. Write rand-m<magnitude, 0 to 10>-n<operations, 0 to 99>"
            "-mstd<deviation>-mmax<0 to 10>-inc<0 or 1>, each part after rand optional, such as "
            "rand-m7-n4-mstd0.5-inc1; autoaugment or autoaugment_torchvision for AutoAugment's policy; nothing for none"
        )
    return RandAugment(
        magnitude=float(found.get("m", _MAX_MAGNITUDE)),
        num_ops=int(found.get("n", 2)),
        magnitude_std=float(found.get("mstd", 0.0)),
        increasing=found.get("inc") == "1",
        magnitude_max=float(found.get("mmax", _MAX_MAGNITUDE)),
    )
