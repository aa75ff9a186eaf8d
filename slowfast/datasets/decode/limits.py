"""Limits on what one file may cost: absurd sizes are refused before anything is decoded or allocated."""

from __future__ import annotations

import time

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
