"""What a prepared video looks like."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from slowfast.errors import UserError

# x264's trades of encoding time for size, as fast as it gets first.
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


@dataclass(frozen=True)
class PrepareSettings:
    """How to re-encode; equal settings give files that need not be made again."""

    short_side: int = 256  # pixels; smaller videos keep their size
    keyframe_interval: int = 32  # frames; a clip is decoded from the key frame before it
    crf: int = 20  # x264's constant rate factor: lower is finer and larger
    fps: float | None = None  # most frames a second; None keeps all
    preset: str = "medium"  # of PRESETS

    def __post_init__(self) -> None:
        limits = {"short_side": (16, 4320), "keyframe_interval": (1, 1000), "crf": (0, 51), "fps": (0.1, 1000)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"--{name.replace('_', '-')} {value}: must be from {low} to {high}")
        if self.preset not in PRESETS:
            raise UserError(f"--preset {self.preset}: must be one of {', '.join(PRESETS)}")

    def digest(self) -> str:
        """Differs where the settings, or what `x264_options` makes of them, differ."""
        text = json.dumps([asdict(self), self.x264_options()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def x264_options(self) -> dict[str, str]:
        """Options of the encoder, chosen for decoding speed.

        Three of four frames are B-frames that no other frame refers to (no pyramid, fixed pattern, closed groups), so
        that the reader leaves out those it does not want. `fastdecode` does without CABAC and in-loop deblocking, which
        halve the decoder's speed, for some 15 % more bytes. One thread: the pool has a process a core.
        """
        pattern = {"bframes": 3, "b-adapt": 0, "b-pyramid": "none", "open-gop": 0, "threads": 1}
        return {
            "preset": self.preset,
            "tune": "fastdecode",
            "crf": str(self.crf),
            "g": str(self.keyframe_interval),
            "x264-params": ":".join(f"{name}={value}" for name, value in pattern.items()),
        }
