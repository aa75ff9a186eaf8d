"""Reading a video that was extracted to a folder of images: only the wanted ones are opened."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from slowfast.datasets.decode.image import read_image
from slowfast.datasets.decode.reader import Decoded, DecodeError, distinct_frames, stand_in

FIRST = 1  # number of the first image


class FrameFolderReader:
    """A folder of `num_frames` numbered images behind the interface of a video.

    `template` gives an image's name for its number from 1, such as {:05d}.jpg. Images carry no frame rate: it is what
    `fps` says. Raises DecodeError where the folder is missing or holds fewer images than it should.
    """

    def __init__(self, folder: Path, template: str, num_frames: int, fps: float = 30.0) -> None:
        self._folder, self._template = folder, template
        self.num_frames, self.fps = num_frames, fps
        self._size: tuple[int, int] | None = None  # (H, W)
        if not self._path(num_frames - 1).is_file():
            raise DecodeError(self._what_is_wrong())

    def _path(self, index: int) -> Path:
        return self._folder / self._template.format(index + FIRST)

    def _what_is_wrong(self) -> str:
        if not self._folder.is_dir():
            return "not a folder of frames" if self._folder.exists() else "no such file or directory"
        missing = [index for index in range(self.num_frames) if not self._path(index).is_file()]
        return (
            f"the index says {self.num_frames} frames, the folder holds {self.num_frames - len(missing)} of them; "
            f"the first missing one is {self._path(missing[0]).name}"
        )

    @property
    def height(self) -> int:
        """Height of the frames (pixels)."""
        return self._frame_size()[0]

    @property
    def width(self) -> int:
        """Width of the frames (pixels)."""
        return self._frame_size()[1]

    def _frame_size(self) -> tuple[int, int]:
        if self._size is None:
            self.read([0])
        assert self._size is not None
        return self._size

    def read(self, indices: Any) -> Decoded:
        """Read the frames at `indices` (from 0, any shape and order, repeats allowed).

        All have the size of the first that can be read; one of another size counts as unreadable. Raises DecodeError
        when none of them can be read.
        """
        wanted, rows = distinct_frames(indices, self.num_frames)
        if not len(wanted):
            return Decoded(np.zeros((0, self.height, self.width, 3), np.uint8), rows, None)
        frames = np.empty((0, 0, 0, 3), np.uint8)
        got = np.zeros(len(wanted), dtype=bool)
        reason = ""
        for row, index in enumerate(wanted.tolist()):
            try:
                image = read_image(self._path(index))
                if not len(frames):
                    frames = np.empty((len(wanted), *image.shape), np.uint8)
                _check_size(image, frames)
            except DecodeError as error:
                reason = reason or f"{self._path(index).name}: {error}"
                continue
            frames[row], got[row] = image, True
        if not got.any():
            raise DecodeError(f"none of {len(wanted)} frames can be read ({reason})")
        self._size = (frames.shape[1], frames.shape[2])
        return Decoded(frames, rows, None) if got.all() else stand_in(frames[got], rows, wanted, got, reason)

    def close(self) -> None:
        """Nothing is kept open."""

    def __enter__(self) -> FrameFolderReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_size(image: np.ndarray, frames: np.ndarray) -> None:
    """Raise DecodeError unless the image has the size of the frames (U, H, W, 3)."""
    if image.shape != frames.shape[1:]:
        height, width = frames.shape[1:3]
        raise DecodeError(f"{image.shape[1]} x {image.shape[0]} pixels where the others have {width} x {height}")
