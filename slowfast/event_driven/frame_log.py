"""event_frames.csv: a line for each frame, there as soon as the frame is computed, also of a run that never ends."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from slowfast.errors import DataError, system_reason
from slowfast.event_driven.activity import FrameFigures
from slowfast.report.results import row_writer

FRAMES = "event_frames.csv"
DIGITS = 6  # significant ones in files
_COMPARED = ("same_class", "logit_error_mean", "logit_error_max")


class FrameLog:
    """Writes the lines; what is there stays when the process is killed. An older file gives way to the first line.

    Columns: path of the video; number of the frame, those left out not counted; seconds, its time in the video, of
    cameras and streams since 1970 when it was computed; patches computed of each stage; multiply-adds; the best
    class's number; where compared, whether that is the whole network's, and the errors of the logits.
    Raises DataError where the disk does not take them.
    """

    def __init__(self, folder: Path, stages: int) -> None:
        self.path = folder / FRAMES
        self._heading = ("path", "frame", "seconds", *(f"active_{n}" for n in range(1, 1 + stages)))
        self._file: TextIO | None = None

    def write(self, name: str, first: int, seconds: list[float], rows: FrameFigures) -> None:
        """The lines of K frames of a video, from its frame number `first` on; seconds: K."""
        try:
            file = self._file or self._begin()
            write = row_writer(file)
            for k, time in enumerate(seconds):
                figures = (*rows.active[k].tolist(), rows.macs[k], rows.answers[k], *_compared(rows, k))
                write((name, first + k, f"{time:.3f}", *figures))
            file.flush()
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be written ({system_reason(error)}); EVENT.FRAME_LOG False does without"
            ) from None

    def _begin(self) -> TextIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)  # not emptied: another process may still write to it
        # surrogateescape: file names need not be valid text
        self._file = self.path.open("x", encoding="utf-8", errors="surrogateescape", newline="")
        row_writer(self._file)((*self._heading, "macs", "class", *_COMPARED))
        return self._file

    @property
    def written(self) -> dict[str, Path]:
        """What there is, and where."""
        return {"a line a frame": self.path} if self._file is not None else {}

    def close(self) -> None:
        """No more lines come."""
        if self._file is not None:
            self._file.close()


def _compared(rows: FrameFigures, k: int) -> tuple[object, ...]:
    of = rows.agreement
    if of is None:
        return ("",) * len(_COMPARED)
    return int(of.same[k]), f"{of.mean[k]:.{DIGITS}g}", f"{of.largest[k]:.{DIGITS}g}"
