"""User-facing errors: commands report them without a traceback and exit with status 2."""

from __future__ import annotations

import os


class UserError(Exception):
    """Error that the user can fix; its message is one line: where, what is wrong, what to do."""


class ReportedByRankZero(UserError):
    """User error that rank 0 reports for all processes."""


class ConfigError(UserError):
    """Unknown key, value of the wrong type or out of range, or invalid combination of values."""


class IndexFileError(UserError):
    """Missing index file, malformed line or unusable label."""


class CheckpointError(UserError):
    """Weights file that is missing, damaged, unsafe, or made for another model."""


class DamagedFileError(CheckpointError):
    """Weights file that is truncated or fails its checksum."""


class DiskError(UserError, OSError):
    """File that cannot be written: the disk is full, the file system read-only, or permission is denied.

    Args:
        message: Text of the error.
        number: Error number of the operating system (``errno``).
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(number, os.strerror(number))
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[DiskError], tuple[str, int]]:
        return DiskError, (self.message, self.errno or 0)


class DataError(UserError):
    """More unreadable samples than DATA.MAX_FAILED allows, or none that can be read."""


class LostProcessError(RuntimeError):
    """Another process of a distributed run timed out or exited. Not a user error: torchrun may restart the run."""


def system_reason(error: BaseException) -> str:
    """Return the operating system's or FFmpeg's description in lower case, else the message of the error."""
    reason = getattr(error, "strerror", None)
    return str(reason).lower() if reason else str(error) or type(error).__name__
