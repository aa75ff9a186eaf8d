"""Settings of a demo dataset, which determine every decoded pixel."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass

from slowfast.errors import UserError
from slowfast.utils.text_files import to_json

RENDERING = 1  # version of the rendering; increase it if the same settings give other content
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DemoSettings:
    """Settings of a demo dataset.

    Args:
        format: Layout.
        seed: Random seed.
        train: Number of training samples; classes take turns.
        val: Number of validation samples.
        test: Number of test samples.
        size: Frame height in pixels; frames are a sixth wider, so that the three crops of a test differ.
        frames: Frames per clip, at 30 fps.

    Raises:
        UserError: For values out of range.
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
            raise UserError(f"--seed {self.seed}: must be at least 0")
        for split in SPLITS:
            if self.count(split) < 1:
                raise UserError(f"--{split} {self.count(split)}: must be at least 1")
        if self.size < 32 or self.size % 2:
            raise UserError(
                f"--size {self.size}: must be an even number of pixels of at least 32, as the video codec requires"
            )
        if self.frames < 2:
            raise UserError(f"--frames {self.frames}: must be at least 2")

    @property
    def width(self) -> int:
        """Return the even frame width in pixels."""
        return round(self.size * 7 / 12) * 2

    def count(self, split: str) -> int:
        """Return the number of samples of a split."""
        return int(getattr(self, split))

    def digest(self) -> str:
        """Return a hash of settings and rendering version; equal hashes mean equal content."""
        text = to_json({"rendering": RENDERING, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
