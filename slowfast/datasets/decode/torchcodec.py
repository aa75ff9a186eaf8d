"""Video reading with torchcodec, an optional package: the interface of the PyAV reader.

By nature of torchcodec: frames are in order of their presentation times, also where a container stores none (AVI, ASF);
frames that FFmpeg marks corrupt and a missing end of the file are not reported, only frames that cannot be decoded; the
time limit is checked between calls, not within one; and frames are scaled down after their conversion to RGB, not in
it, so that their colors differ from the PyAV reader's by more than 2 levels at sharp edges.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np
from av.video.stream import VideoStream

from slowfast.datasets.decode.reader import (
    Deadline,
    Decoded,
    DecodeError,
    believable_rate,
    check_file,
    check_frame_size,
    check_read_size,
    distinct_frames,
    scaled_down,
    stand_in,
)
from slowfast.datasets.decode.rgb import UPRIGHT, Orientation, frame_matrix, orientation_of
from slowfast.errors import ConfigError

try:
    from torchcodec.decoders import VideoDecoder
except (ImportError, OSError, RuntimeError) as _error:
    # Not installed; or its own or FFmpeg's shared libraries are missing, of which it says so at length.
    raise ConfigError(
        f"DATA.DECODING_BACKEND torchcodec does not work here ({str(_error).strip().splitlines()[0]}); "
        "install the extra with: pip install 'slowfast[torchcodec]' and FFmpeg's shared libraries, "
        "or use DATA.DECODING_BACKEND pyav"
    ) from _error


class TorchCodecReader:
    """One open video file; see `open_video`."""

    def __init__(
        self, path: Path, threads: int = 1, timeout: float | None = None, short_side: int | None = None
    ) -> None:
        check_file(path)
        self._short_side = short_side
        self._deadline = Deadline(timeout)
        try:
            self._decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=threads)
            self.num_frames = len(self._decoder)
            about = self._decoder.metadata
            self.fps = believable_rate(about.average_fps_from_header, about.average_fps)
        except (RuntimeError, ValueError, TypeError) as error:
            raise DecodeError(f"not a video that torchcodec can read ({_reason(error)})") from error
        if not self.num_frames:
            raise DecodeError("no video frames in the file")
        self._coded_size = about.height or 0, about.width or 0
        check_frame_size(about.width or 0, about.height or 0)
        self._mirror = _mirror(path)
        self._size: tuple[int, int] | None = None  # (H, W), upright

    @property
    def height(self) -> int:
        """Height of the upright frames that `read` returns (pixels)."""
        return self._upright_size()[0]

    @property
    def width(self) -> int:
        """Width of the upright frames that `read` returns (pixels)."""
        return self._upright_size()[1]

    def _upright_size(self) -> tuple[int, int]:
        """(H, W); the turn is known only from a decoded frame."""
        if self._size is None:
            self.read([0])
        assert self._size is not None
        return self._size

    def read(self, indices: Any) -> Decoded:
        """Decode the frames at `indices` (any shape, any order, repeats allowed).

        Raises:
            DecodeError: If not one of them can be decoded, or a limit is exceeded.
        """
        wanted, rows = distinct_frames(indices, self.num_frames)
        if not len(wanted):
            return Decoded(np.zeros((0, self.height, self.width, 3), np.uint8), rows, None)
        check_read_size(len(wanted), *self._coded_size)
        self._check_time()
        try:
            frames = self._decoder.get_frames_at(wanted.tolist()).data.numpy()  # (U, H, W, 3)
            decoded = Decoded(self._upright(frames), rows, None)
        except (RuntimeError, ValueError, IndexError) as error:
            decoded = self._one_by_one(wanted, rows, _reason(error))
        self._size = (decoded.frames.shape[1], decoded.frames.shape[2])
        return decoded

    def _one_by_one(self, wanted: np.ndarray, rows: np.ndarray, reason: str) -> Decoded:
        """The frames that can be had when one of them can't; `reason` is the first error."""
        frames: list[np.ndarray] = []
        got = np.zeros(len(wanted), dtype=bool)
        for row, index in enumerate(wanted.tolist()):
            self._check_time()
            try:
                frames.append(self._decoder.get_frame_at(index).data.numpy())
                got[row] = True
            except (RuntimeError, ValueError, IndexError):
                continue  # counted in `missing`, with the first reason
        if not frames:
            raise DecodeError(f"no frame can be decoded ({reason})")
        return stand_in(self._upright(np.stack(frames)), rows, wanted, got, reason)

    def _upright(self, frames: np.ndarray) -> np.ndarray:
        """Mirror frames (U, H, W, 3) where the file says so, as torchcodec only turns them, and scale them down."""
        height, width = frames.shape[1:3]
        size = scaled_down(width, height, self._short_side)
        if size != (width, height):
            frames = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
        if self._mirror is None:
            return frames
        turned, orientation = self._mirror
        return np.stack([orientation.apply(np.rot90(frame, -turned)) for frame in frames])

    def _check_time(self) -> None:
        if self._deadline.is_over:
            raise DecodeError(self._deadline.message)

    def close(self) -> None:
        """Close the file."""
        del self._decoder

    def __enter__(self) -> TorchCodecReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _mirror(path: Path) -> tuple[int, Orientation] | None:
    """Quarter turns counterclockwise that torchcodec makes, and the orientation, of a video that is mirrored.

    None for all others. torchcodec does not give the display matrix, PyAV does with the first frame.
    """
    try:
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace") as container:
            stream = container.streams.best("video")
            frame = next(container.decode(stream)) if isinstance(stream, VideoStream) else None
    except (av.FFmpegError, StopIteration):
        return None
    orientation = orientation_of(frame_matrix(frame)) if frame is not None else UPRIGHT
    return (round(frame.rotation / 90), orientation) if frame is not None and orientation.is_mirrored else None


def _reason(error: BaseException) -> str:
    """The first line of torchcodec's message, without the place in its sources."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"^.*\.cpp:\d+, ", "", text)
