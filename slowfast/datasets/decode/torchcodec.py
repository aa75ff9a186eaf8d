"""Video reading with torchcodec, an optional package: the same interface and meaning as the PyAV reader."""

from __future__ import annotations

import re
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from slowfast.datasets.decode.reader import (
    Decoded,
    DecodeError,
    believable_rate,
    check_file,
    distinct_frames,
    stand_in,
)
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

    def __init__(self, path: Path, threads: int = 1) -> None:
        check_file(path)
        try:
            self._decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=threads)
            self.num_frames = len(self._decoder)
            about = self._decoder.metadata
            self.fps = believable_rate(about.average_fps_from_header, about.average_fps)
        except (RuntimeError, ValueError, TypeError) as error:
            raise DecodeError(f"not a video that torchcodec can read ({_reason(error)})") from error
        if not self.num_frames:
            raise DecodeError("no video frames in the file")
        self._size: tuple[int, int] | None = None  # (H, W), upright

    @property
    def height(self) -> int:
        """Height of the upright frames (pixels)."""
        return self._upright_size()[0]

    @property
    def width(self) -> int:
        """Width of the upright frames (pixels)."""
        return self._upright_size()[1]

    def _upright_size(self) -> tuple[int, int]:
        """(H, W); the turn is known only from a decoded frame."""
        if self._size is None:
            self.read([0])
        assert self._size is not None
        return self._size

    def read(self, indices: Any) -> Decoded:
        """Decode the frames at `indices` (any shape, any order, repeats allowed).

        Raises DecodeError when not one of them can be decoded.
        """
        wanted, rows = distinct_frames(indices, self.num_frames)
        if not len(wanted):
            return Decoded(np.zeros((0, self.height, self.width, 3), np.uint8), rows, None)
        try:
            frames = self._decoder.get_frames_at(wanted.tolist()).data.numpy()  # (U, H, W, 3)
            decoded = Decoded(frames, rows, None)
        except (RuntimeError, ValueError, IndexError) as error:
            decoded = self._one_by_one(wanted, rows, _reason(error))
        self._size = (decoded.frames.shape[1], decoded.frames.shape[2])
        return decoded

    def _one_by_one(self, wanted: np.ndarray, rows: np.ndarray, reason: str) -> Decoded:
        """The frames that can be had when one of them can't; `reason` is the first error."""
        frames: list[np.ndarray] = []
        got = np.zeros(len(wanted), dtype=bool)
        for row, index in enumerate(wanted.tolist()):
            try:
                frames.append(self._decoder.get_frame_at(index).data.numpy())
                got[row] = True
            except (RuntimeError, ValueError, IndexError):
                continue  # counted in `missing`, with the first reason
        if not frames:
            raise DecodeError(f"no frame can be decoded ({reason})")
        return stand_in(np.stack(frames), rows, wanted, got, reason)

    def close(self) -> None:
        """Close the file."""
        del self._decoder

    def __enter__(self) -> TorchCodecReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _reason(error: BaseException) -> str:
    """The first line of torchcodec's message, without the place in its sources."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"^.*\.cpp:\d+, ", "", text)
