"""Interface of all readers of frames: limits, file suffixes, errors."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from slowfast.errors import system_reason
from slowfast.utils.text_files import irregular_kind

MAX_IMAGE_BYTES = 2**30  # size of an image file
MAX_IMAGE_PIXELS = 2**28  # width x height of an image: 16384 x 16384
MAX_FRAME_PIXELS = 2**27  # width x height of a video's frames: 16384 x 8192
MAX_READ_BYTES = 2**33  # RGB frames of one read: 8 GiB


class Deadline:
    """Point in time after which reading a file is given up.

    Args:
        seconds: Time allowed from now on; None for no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Return whether the time is up."""
        return self._end is not None and time.monotonic() > self._end

    @property
    def message(self) -> str:
        """Reason to report for a file that took too long."""
        return f"reading took longer than {self.seconds:g} s (DATA_LOADER.TIMEOUT)"


VIDEO_SUFFIXES = frozenset(
    # Containers.
    ".3g2 .3gp .amv .apng .asf .avi .dav .divx .dv .evo .f4v .flv .gif .gxf .ismv .ivr .m2t .m2ts .m4v .mj2 .mk3d .mkv"
    " .mod .mov .mp4 .mpe .mpeg .mpg .mts .mxf .nut .nuv .ogg .ogm .ogv .ogx .psp .pva .qt .rm .rmvb .roq .tod .ts .vob"
    " .webm .wmv .wtv .y4m"
    # Elementary streams.
    " .264 .265 .266 .apv .avc .avs2 .avs3 .cavs .dnxhd .dnxhr .drc .evc .h261 .h263 .h264 .h265 .h266 .hevc .ivf .m1v"
    " .m2v .mjpeg .mjpg .mpv .obu .rcv .vc1 .vc2 .vvc".split()
)
IMAGE_SUFFIXES = frozenset(".bmp .dib .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split())

# Files that accompany videos and images in datasets: skipped without a word.
_COMPANIONS = frozenset(
    # Text, tables, annotations and documents.
    " .cfg .conf .css .csv .doc .docx .feather .htm .html .ini .ipynb .js .json .jsonl .log .md .md5 .nfo .parquet .pdf"
    " .py .pyc .rst .sh .sha256 .sql .toml .tsv .txt .url .xls .xlsx .xml .yaml .yml"
    # Arrays, checkpoints and databases.
    " .ckpt .db .h5 .hdf5 .index .mat .npy .npz .onnx .pickle .pkl .pt .pth .sqlite"
    # Sound and subtitles.
    " .aac .ac3 .aif .aiff .ass .flac .idx .m4a .mka .mp3 .opus .pcm .smi .srt .ssa .sub .vtt .wav .wma"
    # Companions of cameras and of download programs.
    " .part .thm .lrv .xmp .modd .moff .cpi .bdm .mpl .ytdl".split()
)
_SHOWN = 3


def unrecognized(names: Iterable[str], suffixes: frozenset[str]) -> list[str]:
    """Return the names of files that a search skips although nothing says that they are no media.

    Args:
        names: File names or paths found in the searched folder.
        suffixes: Suffixes that the search takes, in lower case with the dot.
    """
    known = suffixes | VIDEO_SUFFIXES | IMAGE_SUFFIXES | _COMPANIONS
    found = []
    for name in names:
        path = PurePath(name)
        if not path.name.startswith(".") and path.suffix.lower() not in known:
            found.append(name)
    return found


def skipped_note(folder: object, names: Iterable[str], suffixes: frozenset[str]) -> str | None:
    """Return a warning that counts the unrecognized files of a searched folder and names a few; None without any."""
    found = sorted(unrecognized(names, suffixes))
    if not found:
        return None
    listed = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
    files = "1 file was" if len(found) == 1 else f"{len(found)} files were"
    return f"{folder}: {files} skipped because of an unknown suffix: {listed}"


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
