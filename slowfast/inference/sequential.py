"""Videos and folders of frames that are read sequentially, decoding each frame once.

Notation: n frames; H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from slowfast.datasets.decode.image import FrameFolderReader
from slowfast.datasets.decode.pyav import PyAVReader
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.decode.rgb import RgbConverter


class SequentialVideo(Protocol):
    """Open video whose frames are read in order."""

    fps: float

    def times(self) -> np.ndarray:
        """Return the display time of each frame in seconds after the first, (n,)."""

    def images(self, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number and RGB image of each frame of the mask `wanted`, bool (n,), that can be decoded."""

    @property
    def missing(self) -> str | None:
        """Description of what could not be read; valid after the last frame."""

    def close(self) -> None: ...


class SequentialFile:
    """Video file as a `SequentialVideo`.

    Args:
        path: The file.
        threads: Number of decoder threads.
        short_side: Short side (pixels) that larger frames are scaled down to.
    """

    def __init__(self, path: Path, threads: int, short_side: int) -> None:
        self._reader = PyAVReader(path, threads)
        self._short_side, self._unconverted = short_side, ""
        self.fps = self._reader.fps

    def times(self) -> np.ndarray:
        return self._reader.times()

    def images(self, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        convert = RgbConverter(short_side=self._short_side)
        for number, frame in self._reader.every_frame():
            if number >= len(wanted):
                return
            if not wanted[number]:
                continue
            try:
                image = convert(frame)
            except DecodeError as error:
                self._unconverted = str(error)
                continue
            yield number, image

    @property
    def missing(self) -> str | None:
        return self._reader.error or self._unconverted or self._reader.truncation

    def close(self) -> None:
        self._reader.close()


class SequentialFolder:
    """Folder of frames as a `SequentialVideo`.

    Args:
        path: The folder.
        template: File name template of the frames.
        frames: Number of frames.
        fps: Frame rate, which images do not contain.
    """

    missing: str | None = None

    def __init__(self, path: Path, template: str, frames: int, fps: float) -> None:
        self._reader = FrameFolderReader(path, template, frames, fps)
        self.fps = fps

    def times(self) -> np.ndarray:
        return np.arange(self._reader.num_frames) / self.fps

    def images(self, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        for number in np.flatnonzero(wanted).tolist():
            try:
                yield number, self._reader.read([number]).frames[0]
            except DecodeError as error:
                self.missing = self.missing or str(error)

    def close(self) -> None:
        self._reader.close()
