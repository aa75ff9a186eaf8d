"""What every video decoder gives: the reader's interface, its result and its error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from slowfast.datasets.decode.limits import MAX_FRAME_PIXELS, MAX_READ_BYTES
from slowfast.errors import system_reason
from slowfast.utils.regular_file import irregular_kind

# Share by which the header's frame rate may differ from the timestamps' and still be believed.
_RATE_TOLERANCE = 0.05


class DecodeError(Exception):
    """Nothing of a file can be read; the text is the reason, in one line."""


@dataclass(frozen=True)
class Decoded:
    """Frames read from one video. U distinct frames, H height, W width."""

    frames: np.ndarray  # uint8 (U, H, W, 3), R G B, in ascending order of time
    rows: np.ndarray  # int64, the shape of the asked indices: where in `frames` each one is
    missing: str | None  # damage: frames replaced by the nearest one or marked corrupt, a missing end; None: nothing


class VideoReader(Protocol):
    """An open video. `read` raises DecodeError when none of the asked frames can be had."""

    @property
    def num_frames(self) -> int: ...

    @property
    def fps(self) -> float: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def read(self, indices: Any) -> Decoded: ...

    def close(self) -> None: ...

    def __enter__(self) -> VideoReader: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def check_file(path: Path) -> None:
    """Check that a path is a regular file that can be read and is not empty, without opening anything else.

    A pipe or a device would block a reader or never end.

    Raises:
        DecodeError: If it is anything else.
    """
    try:
        info = path.stat()
        if wrong := irregular_kind(info.st_mode):
            raise DecodeError(wrong)
        if not info.st_size:
            raise DecodeError("the file is empty (0 bytes)")
        with path.open("rb"):
            pass
    except OSError as error:
        raise DecodeError(system_reason(error)) from error
    except ValueError as error:  # a name with a zero byte
        raise DecodeError(str(error)) from error


def check_frame_size(width: int, height: int) -> None:
    """Check that frames of a video are of a size that a machine can hold.

    Raises:
        DecodeError: If they have more than MAX_FRAME_PIXELS.
    """
    if width * height > MAX_FRAME_PIXELS:
        raise DecodeError(f"frames of {width} x {height} pixels, more than the limit of {MAX_FRAME_PIXELS} in all")


def check_read_size(frames: int, height: int, width: int) -> None:
    """Check that the frames of one read, as RGB, stay within the limit.

    Raises:
        DecodeError: If they would take more than MAX_READ_BYTES.
    """
    size = 3 * frames * height * width
    if size > MAX_READ_BYTES:
        raise DecodeError(
            f"{frames} frames of {width} x {height} pixels take {size / 2**30:.0f} GiB as RGB, "
            f"more than the limit of {MAX_READ_BYTES / 2**30:.0f} GiB"
        )


def scaled_down(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Return the width and height of frames that are scaled down to a short side.

    Args:
        width: Width of the frames (pixels).
        height: Height of the frames (pixels).
        short_side: Length of the short side after scaling (pixels). Frames whose short side is not longer keep their
            size; None keeps every size. The long side is rounded to the nearest pixel, halves up, as by torchvision's
            video reader (`video_min_dimension`).
    """
    shortest = min(width, height)
    if short_side is None or shortest <= short_side:
        return width, height
    scaled = [(2 * length * short_side + shortest) // (2 * shortest) for length in (width, height)]
    return scaled[0], scaled[1]


def believable_rate(header: float | None, measured: float | None) -> float:
    """Frames a second: the header's figure where the timestamps agree with it, else what they tell.

    Measured rates suffer from rounded timestamps and single lost frames, header rates are wrong for variable rates.
    """
    if header and measured and abs(header / measured - 1) > _RATE_TOLERANCE:
        return float(measured)
    return float(header or measured or 1.0)  # a single picture may have neither


def distinct_frames(indices: Any, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct frame numbers (U,), and for each index its place among them (shape of `indices`).

    Raises IndexError for a frame that the video does not have.
    """
    asked = np.asarray(indices, dtype=np.int64)
    if asked.size and (asked.min() < 0 or asked.max() >= num_frames):
        raise IndexError(f"frames {asked.min()}..{asked.max()} asked of a video of {num_frames}")
    wanted, rows = np.unique(asked, return_inverse=True)
    return wanted, rows.reshape(asked.shape)


def stand_in(frames: np.ndarray, rows: np.ndarray, wanted: np.ndarray, got: np.ndarray, reason: str) -> Decoded:
    """Return the result of a read of which only some frames came out: each other one is replaced by the nearest.

    Args:
        frames: The frames that came out, at least one.
        rows: For each asked index its row among the wanted frames.
        wanted: Distinct frame numbers (U,), ascending.
        got: Which of them came out, bool (U,).
        reason: Why the others did not.
    """
    have = wanted[got]
    nearest = np.abs(wanted[:, None] - have[None, :]).argmin(axis=1)  # (U,) into `frames`
    missing = f"{len(wanted) - len(have)} of {len(wanted)} frames could not be decoded ({reason})"
    return Decoded(frames, nearest[rows], missing)
