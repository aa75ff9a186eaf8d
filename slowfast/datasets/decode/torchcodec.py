"""Video decoding with torchcodec, an optional package.

Differences from the PyAV reader: frames are ordered by presentation timestamp even if the container stores none (AVI,
ASF); corrupt frames and truncated files are not reported, only frames that cannot be decoded; the time limit is checked
between calls only; frames are scaled after their conversion to RGB, so their colors differ by more than 2 levels at
sharp edges.
"""

from __future__ import annotations

import re
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.stream import VideoStream

from slowfast.datasets.decode.container import open_any_metadata
from slowfast.datasets.decode.reader import (
    Deadline,
    Decoded,
    DecodeError,
    FrameReader,
    check_file,
    check_frame_size,
    check_read_size,
    fill_missing,
    plausible_rate,
    scaled_down,
)
from slowfast.datasets.decode.rgb import UPRIGHT, Orientation, frame_matrix, orientation_of
from slowfast.errors import ConfigError

try:
    from torchcodec.decoders import VideoDecoder
except (ImportError, OSError, RuntimeError) as _error:
    # Not installed, or shared libraries are missing (torchcodec's message is long).
    raise ConfigError(
        f"DATA.DECODING_BACKEND: torchcodec cannot be used ({str(_error).strip().splitlines()[0]}). "
        "Install it with pip install 'slowfast[torchcodec]' and FFmpeg's shared libraries, or set "
        "DATA.DECODING_BACKEND to pyav"
    ) from _error


class TorchCodecReader(FrameReader):
    """Open video file; for the arguments see :func:`slowfast.datasets.decode.open_video`."""

    def __init__(
        self, path: Path, threads: int = 1, timeout: float | None = None, short_side: int | None = None
    ) -> None:
        check_file(path)
        self._short_side = short_side
        self._deadline = Deadline(timeout)
        try:
            self._decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=threads)
            self._num_frames = len(self._decoder)
            about = self._decoder.metadata
            self.fps = plausible_rate(about.average_fps_from_header, about.average_fps)
        except (RuntimeError, ValueError, TypeError) as error:
            raise DecodeError(f"not a video that torchcodec can read: {_reason(error)}") from error
        if not self.num_frames:
            raise DecodeError("no video frames in the file")
        self._coded_size = about.height or 0, about.width or 0
        check_frame_size(about.width or 0, about.height or 0)
        self._mirror = _mirror(path)

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return self._num_frames

    def _decode(self, wanted: np.ndarray, rows: np.ndarray) -> Decoded:
        check_read_size(len(wanted), *self._coded_size)
        self._check_time()
        try:
            frames = self._decoder.get_frames_at(wanted.tolist()).data.numpy()  # (U, H, W, 3)
            decoded = Decoded(self._upright(frames), rows, None)
        except (RuntimeError, ValueError, IndexError) as error:
            decoded = self._one_by_one(wanted, rows, _reason(error))
        self._size = (decoded.frames.shape[2], decoded.frames.shape[1])
        return decoded

    def _one_by_one(self, wanted: np.ndarray, rows: np.ndarray, reason: str) -> Decoded:
        """Decode the frames one by one after decoding them together has failed."""
        frames: list[np.ndarray] = []
        valid = np.zeros(len(wanted), dtype=bool)
        for row, index in enumerate(wanted.tolist()):
            self._check_time()
            try:
                frames.append(self._decoder.get_frame_at(index).data.numpy())
                valid[row] = True
            except (RuntimeError, ValueError, IndexError):
                continue  # counted in `missing`
        if not frames:
            raise DecodeError(f"no frame can be decoded: {reason}")
        return fill_missing(self._upright(np.stack(frames)), rows, wanted, valid, reason)

    def _upright(self, frames: np.ndarray) -> np.ndarray:
        """Scale frames (U, H, W, 3) down, and mirror them if required, because torchcodec only rotates them."""
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


def _mirror(path: Path) -> tuple[int, Orientation] | None:
    """Return the counterclockwise quarter turns by torchcodec and the orientation of a mirrored video, None for others.

    torchcodec does not return the display matrix; PyAV does with the first frame.
    """
    try:
        with open_any_metadata(f"file:{path}", {"protocol_whitelist": "file"}) as container:
            stream = container.streams.best("video")
            frame = next(container.decode(stream)) if isinstance(stream, VideoStream) else None
    except (av.FFmpegError, StopIteration):
        return None
    orientation = orientation_of(frame_matrix(frame)) if frame is not None else UPRIGHT
    return (round(frame.rotation / 90), orientation) if frame is not None and orientation.is_mirrored else None


def _reason(error: BaseException) -> str:
    """Return the first line of an error message of torchcodec, without the source location."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"^.*\.cpp:\d+, ", "", text)
