"""Samples that could not be read: the reason of each, the list of all, and how many may fail."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterable

import av
import cv2

from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.types import Failure
from slowfast.errors import system_reason
from slowfast.runtime.logging import get_logger, log_table

# Files of a training set that may be unreadable whatever DATA.MAX_FAILED is, unless it is 0.
MIN_ALLOWED = 3
_MOST_CHARACTERS = 500  # of a reason
_FIRST = 3  # failures named in the message that ends a run

_logged_tracebacks: set[str] = set()


def failure_reason(error: BaseException) -> str:
    """Return why a file could not be read, in one line.

    Args:
        error: What its reader raised. The text of a DecodeError is the reason; of errors of the system, FFmpeg and
            OpenCV it is their own short text; of any other kind the name and the text of the error.
    """
    if isinstance(error, DecodeError):
        text = str(error)
    elif isinstance(error, (OSError, av.FFmpegError)) and str(error):
        text = system_reason(error)
    elif isinstance(error, cv2.error):
        text = f"OpenCV: {error.err or error}"
    else:
        text = ": ".join(filter(None, (type(error).__name__, str(error))))
    line = " ".join(text.split()) or type(error).__name__
    return line if len(line) <= _MOST_CHARACTERS else f"{line[:_MOST_CHARACTERS]}..."


def failure_of(index: int, name: str, error: BaseException) -> Failure:
    """Return the failure of a sample whose reading raised an error; of unexpected ones with the traceback."""
    expected = isinstance(error, (DecodeError, OSError, av.FFmpegError))
    trace = "" if expected else "".join(traceback.format_exception(error))
    return Failure(index, name, failure_reason(error), traceback=trace)


def allowed_failures(share: float, total: int) -> int:
    """Return how many of `total` training samples may be unreadable before the run ends.

    Args:
        share: DATA.MAX_FAILED. Unless it is 0 at least MIN_ALLOWED samples may fail, but never all.
        total: Number of samples.
    """
    allowed = math.floor(share * total)
    if share > 0:
        allowed = max(allowed, MIN_ALLOWED)
    return max(min(allowed, total - 1), 0)


class FailureLedger:
    """Failures of one pass over the `total` samples of a dataset."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._by_index: dict[int, Failure] = {}

    def add(self, failures: Iterable[Failure], log: bool = True) -> None:
        """Add failures; each sample is counted and logged once, an unreadable one replacing a damaged one."""
        for failure in failures:
            known = self._by_index.get(failure.index)
            if known is None or (failure.lost and not known.lost):
                self._by_index[failure.index] = failure
                if not log:
                    continue
                what = "cannot be read" if failure.lost else "is damaged"
                get_logger().warning(f"{failure.name} {what}: {failure.reason}")
                log_traceback(failure)

    @property
    def all(self) -> list[Failure]:
        """Every failure, in the order of the index file."""
        return [self._by_index[index] for index in sorted(self._by_index)]

    @property
    def lost(self) -> list[Failure]:
        """Failures of the samples of which nothing could be used."""
        return [failure for failure in self.all if failure.lost]

    def complaint(self, share: float) -> str | None:
        """Return a message if more training samples are unreadable than DATA.MAX_FAILED allows, else None."""
        lost, limit = self.lost, allowed_failures(share, self.total)
        if len(lost) <= limit:
            return None
        named = "; ".join(f"{failure.name}: {failure.reason}" for failure in lost[:_FIRST])
        more = f"; and {len(lost) - _FIRST} more" if len(lost) > _FIRST else ""
        return (
            f"Stopping: {len(lost)} of {self.total} training videos are unreadable (limit: {limit}, DATA.MAX_FAILED): "
            f"{named}{more}"
        )


def log_traceback(failure: Failure) -> None:
    """Log the traceback of an unexpected error, the first time that one of its kind is met."""
    kind = failure.traceback.strip().rpartition("\n")[2].partition(":")[0]
    if kind and kind not in _logged_tracebacks:
        _logged_tracebacks.add(kind)
        log_table(failure.traceback.rstrip())
