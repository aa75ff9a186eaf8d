"""The errors that are the user's to mend; `tools/run_net.py` prints them without a traceback and exits with 2."""

from __future__ import annotations

import os


class UserError(Exception):
    """A mistake in the config, an index file or a checkpoint: one line that says what, where and what to do."""


class ToldElsewhere(UserError):
    """A mistake that the main process tells for all."""


class ConfigError(UserError):
    """An unknown key, a value of the wrong type or an impossible combination of values."""


class IndexFileError(UserError):
    """A broken line, an unusable label or a missing index file."""


class CheckpointError(UserError):
    """A file of weights that is missing, damaged, unsafe, or belongs to another network."""


class DamagedFileError(CheckpointError):
    """A file of weights whose bytes are not those that were written: truncated, or with a wrong checksum."""


class DiskError(UserError, OSError):
    """A file that cannot be written: the disk is full, read-only or not permitted."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(number, os.strerror(number))
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[DiskError], tuple[str, int]]:
        return DiskError, (self.message, self.errno or 0)


class DataError(UserError):
    """More media failed than DATA.MAX_FAILED allows, or none could be read at all."""


def system_reason(error: BaseException) -> str:
    """Return the short text of an error of the operating system or FFmpeg in lower case, else the error's own text."""
    reason = getattr(error, "strerror", None)
    return str(reason).lower() if reason else str(error) or type(error).__name__
