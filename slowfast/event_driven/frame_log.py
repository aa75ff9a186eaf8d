"""Log of the activity of each frame in event-driven inference, written while a run goes on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TextIO

from slowfast.errors import DataError, system_reason
from slowfast.event_driven.activity import FrameActivity
from slowfast.utils.text_files import row_writer

FRAMES_FILE = "event_frames.csv"
_DIGITS = 6  # significant digits
_FRAME_COMPARISON = ("same_class", "logit_error_mean", "logit_error_max")


class FrameLog:
    """CSV file with one line per frame, flushed after every write; it replaces that of an earlier run.

    Columns: path of the video, or its name if it has one; frame number, without dropped frames; time in the video in
    seconds, for live sources the Unix time at which the frame was computed; patches computed per stage; multiply-adds;
    index of the top-1 class; if the frame was compared with dense inference, whether the class is the same, and the
    mean and maximum logit error; with random weights `untrained`, which is 1.
    """

    def __init__(self, folder: Path, stages: int, untrained: bool) -> None:
        self.path = folder / FRAMES_FILE
        self._untrained = (1,) if untrained else ()
        self._heading = ("path", "frame", "seconds", *(f"active_{n}" for n in range(1, 1 + stages)))
        self._file: TextIO | None = None

    def write(self, name: str, first: int, seconds: list[float], frames: FrameActivity) -> None:
        """Write the lines of K frames.

        Args:
            name: Name of the video.
            first: Number of the first frame.
            seconds: Time of each frame.
            frames: Activity of the frames.

        Raises:
            DataError: If the file cannot be written.
        """
        try:
            file = self._file or self._create()
            write = row_writer(file)
            for k, time in enumerate(seconds):
                values = (*frames.active[k].tolist(), frames.macs[k], frames.predictions[k], *_comparison(frames, k))
                write((name, first + k, f"{time:.3f}", *values, *self._untrained))
            file.flush()
        except OSError as error:
            raise self._error(error) from None

    def _create(self) -> TextIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)  # not truncated: another process may still write to it
        # surrogateescape: file names need not be valid text
        self._file = self.path.open("x", encoding="utf-8", errors="surrogateescape", newline="")
        untrained = ("untrained",) if self._untrained else ()
        row_writer(self._file)((*self._heading, "macs", "class", *_FRAME_COMPARISON, *untrained))
        return self._file

    def extend(self, folder: Path) -> None:
        """Append the lines of the log in another folder, if there is one, and delete it."""
        other = folder / FRAMES_FILE
        if not other.exists():
            return
        try:
            file = self._file or self._create()
            with other.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
                next(lines)
                shutil.copyfileobj(lines, file)
            file.flush()
        except OSError as error:
            raise self._error(error) from None

    def _error(self, error: OSError) -> DataError:
        return DataError(
            f"{self.path} cannot be written: {system_reason(error)}. Set EVENT.FRAME_LOG to False to do without it"
        )

    @property
    def written(self) -> dict[str, Path]:
        """Path of the file if there is one, by description."""
        return {"metrics per frame": self.path} if self._file is not None else {}

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _comparison(frames: FrameActivity, k: int) -> tuple[object, ...]:
    of = frames.agreement
    if of is None:
        return ("",) * len(_FRAME_COMPARISON)
    return int(of.same[k]), f"{of.mean[k]:.{_DIGITS}g}", f"{of.largest[k]:.{_DIGITS}g}"
