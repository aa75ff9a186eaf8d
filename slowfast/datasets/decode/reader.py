"""Interface of all video and image readers, their limits, and the suffixes of media files."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from slowfast.errors import system_reason
from slowfast.utils.paths import irregular_kind

MAX_IMAGE_BYTES = 2**30  # limit of an image file
MAX_IMAGE_PIXELS = 2**28  # width x height of an image: 16384 x 16384
MAX_FRAME_PIXELS = 2**27  # width x height of video frames: 16384 x 8192
MAX_READ_BYTES = 2**33  # limit of the RGB frames of one read: 8 GiB
# Largest relative difference between the frame rates of header and timestamps at which the header is trusted.
_RATE_TOLERANCE = 0.05
VIDEO_SUFFIXES = frozenset(
    # Containers.
    ".3g2 .3gp .amv .apng .asf .avi .dav .divx .dv .evo .f4v .flv .gif .gxf .ismv .ivr .m2t .m2ts .m4v .mj2 .mk3d .mkv"
    " .mod .mov .mp4 .mpe .mpeg .mpg .mts .mxf .nut .nuv .ogg .ogm .ogv .ogx .pdv .psp .pva .qt .rm .rmvb .roq .tod .ts"
    " .vob .webm .wmv .wtv .y4m"
    # Elementary streams.
    " .264 .265 .266 .apv .avc .avs2 .avs3 .cavs .dnxhd .dnxhr .drc .evc .h261 .h263 .h264 .h265 .h266 .hevc .ivf .m1v"
    " .m2v .mjpeg .mjpg .mpv .obu .rcv .vc1 .vc2 .vvc".split()
)
IMAGE_SUFFIXES = frozenset(".bmp .dib .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split())
# Files that accompany videos and images in datasets: skipped without a warning.
_COMPANIONS = frozenset(
    # Text, tables, annotations and documents.
    " .cfg .conf .css .csv .doc .docx .feather .htm .html .ini .ipynb .js .json .jsonl .log .md .md5 .nfo .parquet .pdf"
    " .py .pyc .rst .sh .sha256 .sql .toml .tsv .txt .url .xls .xlsx .xml .yaml .yml"
    # Arrays, checkpoints and databases.
    " .ckpt .db .h5 .hdf5 .index .mat .npy .npz .onnx .pickle .pkl .pt .pth .sqlite"
    # Audio and subtitles.
    " .aac .ac3 .aif .aiff .ass .flac .idx .m4a .mka .mp3 .opus .pcm .smi .srt .ssa .sub .vtt .wav .wma"
    # Companion files of cameras and download programs.
    " .part .thm .lrv .xmp .modd .moff .cpi .bdm .mpl .ytdl".split()
)
_SHOWN = 3  # maximum number of skipped files named in a warning


class DecodeError(Exception):
    """Error for a file that cannot be decoded; the message is a one-line reason."""


@dataclass(frozen=True)
class Decoded:
    """Frames of one read: U distinct frames of H x W pixels."""

    frames: np.ndarray  # uint8 (U, H, W, 3), RGB, in ascending order of time
    rows: np.ndarray  # int64, in the shape of the requested indices: row of each in `frames`
    missing: str | None  # damage: replaced or corrupt frames, truncated file; None if intact


class VideoReader(Protocol):
    """Open video; ``read`` raises DecodeError if none of the requested frames can be decoded."""

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


class FrameReader:
    """Base class of readers whose frame size is only known after decoding a frame: `_decode` sets ``_size``."""

    _size: tuple[int, int] | None = None  # (W, H) of the upright frames, scaled

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        raise NotImplementedError

    @property
    def height(self) -> int:
        """Height of the upright frames that `read` returns (pixels)."""
        return self._upright_size()[1]

    @property
    def width(self) -> int:
        """Width of the upright frames that `read` returns (pixels)."""
        return self._upright_size()[0]

    def read(self, indices: Any) -> Decoded:
        """Decode the frames at `indices`; all have the size of the first.

        Args:
            indices: Frame indices, of any shape and in any order; repeats are allowed.

        Raises:
            DecodeError: If no frame can be decoded, or a limit is exceeded.
        """
        wanted, rows = distinct_frames(indices, self.num_frames)
        if not len(wanted):
            return Decoded(np.zeros((0, self.height, self.width, 3), np.uint8), rows, None)
        return self._decode(wanted, rows)

    def close(self) -> None:
        """Close the file, if one is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _decode(self, wanted: np.ndarray, rows: np.ndarray) -> Decoded:
        """Decode distinct frames (U,); `rows` has the row of each requested frame among them."""
        raise NotImplementedError

    def _upright_size(self) -> tuple[int, int]:
        if self._size is None:
            self.read([0])
        assert self._size is not None
        return self._size


class Deadline:
    """Time limit for reading a file.

    Args:
        seconds: Time limit from now on; None for no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """True if the time limit is exceeded."""
        return self._end is not None and time.monotonic() > self._end

    @property
    def message(self) -> str:
        """Reason to report for a file that took too long."""
        return f"reading took longer than {self.seconds:g} s (DATA_LOADER.TIMEOUT)"


def check_file(path: Path) -> None:
    """Check that a path is a regular, readable file that is not empty.

    Other kinds of files, such as pipes and devices, are not opened, because they may block.

    Raises:
        DecodeError: If it is not.
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
    except ValueError as error:  # the name contains a NUL character
        raise DecodeError(str(error)) from error


def check_frame_size(width: int, height: int) -> None:
    """Check the frame size of a video.

    Raises:
        DecodeError: If frames have more than MAX_FRAME_PIXELS pixels.
    """
    if width * height > MAX_FRAME_PIXELS:
        raise DecodeError(f"frames of {width} x {height} pixels exceed the limit of {MAX_FRAME_PIXELS} pixels")


def check_read_size(frames: int, height: int, width: int) -> None:
    """Check the memory of the RGB frames of a read.

    Raises:
        DecodeError: If they take more than MAX_READ_BYTES.
    """
    size = 3 * frames * height * width
    if size > MAX_READ_BYTES:
        raise DecodeError(
            f"{frames} frames of {width} x {height} pixels take {size / 2**30:.0f} GiB as RGB, "
            f"more than the limit of {MAX_READ_BYTES / 2**30:.0f} GiB"
        )


def scaled_down(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Return the width and height of frames after scaling them down to a short side.

    Args:
        width: Width of the frames (pixels).
        height: Height of the frames (pixels).
        short_side: Length of the short side after scaling (pixels); None to keep the size. Frames with a smaller short
            side keep their size. The long side is rounded half up, as in torchvision's video reader
            (``video_min_dimension``).
    """
    shortest = min(width, height)
    if short_side is None or shortest <= short_side:
        return width, height
    scaled = [(2 * length * short_side + shortest) // (2 * shortest) for length in (width, height)]
    return scaled[0], scaled[1]


def plausible_rate(header: float | None, measured: float | None) -> float:
    """Return the frame rate of the header if the timestamps agree with it, else the measured one.

    Measured rates suffer from rounded timestamps and lost frames; header rates are wrong for variable frame rates.

    Args:
        header: Frames/s according to the header, if any.
        measured: Frames/s according to the timestamps, if any.
    """
    if header and measured and abs(header / measured - 1) > _RATE_TOLERANCE:
        return float(measured)
    return float(header or measured or 1.0)  # a single frame may have neither


def distinct_frames(indices: Any, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the distinct frames among requested indices.

    Returns:
        The distinct indices (U,) in ascending order, and the row of each requested index among them.

    Raises:
        IndexError: If an index is out of range.
    """
    requested = np.asarray(indices, dtype=np.int64)
    if requested.size and (requested.min() < 0 or requested.max() >= num_frames):
        raise IndexError(f"frames {requested.min()}..{requested.max()} requested from a video of {num_frames} frames")
    wanted, rows = np.unique(requested, return_inverse=True)
    return wanted, rows.reshape(requested.shape)


def fill_missing(frames: np.ndarray, rows: np.ndarray, wanted: np.ndarray, valid: np.ndarray, reason: str) -> Decoded:
    """Build the result of a read; frames that could not be decoded are replaced by the nearest ones.

    Args:
        frames: The decoded frames, at least one.
        rows: Row of each requested index among the wanted frames.
        wanted: Distinct frame indices (U,), ascending.
        valid: Mask of the decoded frames, bool (U,).
        reason: Reason why the others could not be decoded.
    """
    have = wanted[valid]
    nearest = np.abs(wanted[:, None] - have[None, :]).argmin(axis=1)  # (U,) into `frames`
    missing = f"{len(wanted) - len(have)} of {len(wanted)} frames could not be decoded: {reason}"
    return Decoded(frames, nearest[rows], missing)


def unrecognized(names: Iterable[str], suffixes: frozenset[str]) -> list[str]:
    """Return the names of skipped files that may be media of an unknown suffix.

    Args:
        names: File names or paths found in the searched folder.
        suffixes: Suffixes that the search accepts, in lower case with the dot.
    """
    known = suffixes | VIDEO_SUFFIXES | IMAGE_SUFFIXES | _COMPANIONS
    found = []
    for name in names:
        path = PurePath(name)
        if not path.name.startswith(".") and path.suffix.lower() not in known:
            found.append(name)
    return found


def skipped_note(folder: object, names: Iterable[str], suffixes: frozenset[str]) -> str | None:
    """Return a warning that names a few of the unrecognized files of a folder; None if there are none."""
    found = sorted(unrecognized(names, suffixes))
    if not found:
        return None
    listed = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
    files = "1 file was" if len(found) == 1 else f"{len(found)} files were"
    return f"{folder}: {files} skipped because of an unknown suffix: {listed}"
