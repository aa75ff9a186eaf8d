"""What demo data to make: the settings that decide every decoded pixel, checked when made."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass

from slowfast.errors import UserError
from slowfast.utils.json_files import to_json

RENDERING = 1  # raised by hand when the same settings give other content, so that old folders are made anew
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DemoSettings:
    """Settings of one folder of demo data; raises UserError for values that cannot be used.

    train, val, test are numbers of samples, shared evenly among the classes; size is the frames' height in pixels
    (they are a sixth wider, so that the crops of a 3-crop test differ); frames is a clip's length at 30 frames/s.
    """

    format: str = "kinetics"
    seed: int = 0
    train: int = 1280
    val: int = 80
    test: int = 320
    size: int = 96
    frames: int = 48

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}: must be 0 or more")
        for split in SPLITS:
            if self.count(split) < 1:
                raise UserError(f"--{split} {self.count(split)}: must be at least 1")
        if self.size < 32 or self.size % 2:
            raise UserError(
                f"--size {self.size}: must be an even number of pixels, at least 32 (the video codec needs it)"
            )
        if self.frames < 2:
            raise UserError(f"--frames {self.frames}: must be at least 2, or nothing moves")

    @property
    def width(self) -> int:
        """Width of the frames in pixels, even."""
        return round(self.size * 7 / 12) * 2

    def count(self, split: str) -> int:
        """Samples of a split."""
        return int(getattr(self, split))

    def digest(self) -> str:
        """A short name of the settings and the rendering: equal digests mean equal content."""
        text = to_json({"rendering": RENDERING, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
