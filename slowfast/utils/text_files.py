"""Safe reading of small UTF-8 text files: regular files only, with a size limit."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from slowfast.errors import system_reason
from slowfast.utils.path_manager import FetchError, local_path

_KINDS = {
    stat.S_IFDIR: "is a directory",
    stat.S_IFIFO: "is a named pipe, not a regular file",
    stat.S_IFSOCK: "is a socket, not a regular file",
    stat.S_IFCHR: "is a device, not a regular file",
    stat.S_IFBLK: "is a device, not a regular file",
}


def irregular_kind(mode: int) -> str:
    """Return the kind of an irregular file, such as "is a directory"; an empty string for a regular file.

    Args:
        mode: `st_mode` of its status.
    """
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "is not a regular file")


def why_not_regular(path: str | Path) -> str:
    """Return why a path is not a readable regular file, such as "does not exist"; an empty string if it is one.

    Args:
        path: A local path, or an address for :mod:`slowfast.utils.path_manager`.
    """
    try:
        return irregular_kind(os.stat(local_path(path)).st_mode)
    except FetchError as error:
        return str(error)
    except PermissionError:
        return "is in a folder without access"
    except (OSError, ValueError):  # ValueError: invalid file name
        return "does not exist"


MIB = 2**20


class UnreadableTextError(Exception):
    """Error of :func:`read_text_file`.

    Args:
        reason: Description to follow the file name, such as "does not exist".
        missing: Whether the file does not exist.
        line: Number of the offending line from 1; 0 if unknown.
    """

    def __init__(self, reason: str, *, missing: bool = False, line: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.missing, self.line = reason, missing, line


def read_text_file(path: str | Path, max_bytes: int) -> str:
    """Read a UTF-8 text file without its byte order mark.

    Pipes, devices and sockets are refused before they are opened, because reading them may never end.

    Args:
        path: A local path, or an address for :mod:`slowfast.utils.path_manager`.
        max_bytes: Size limit.

    Raises:
        UnreadableTextError: If the file is missing, not regular, larger than `max_bytes`, unreadable or not UTF-8 text.
    """
    try:
        data = _read_regular_file(os.fspath(local_path(path)), max_bytes)
    except FetchError as error:
        raise UnreadableTextError(str(error)) from None
    except FileNotFoundError:
        raise UnreadableTextError("does not exist", missing=True) from None
    except NotADirectoryError:
        raise UnreadableTextError("does not exist (a part of the path is a file)", missing=True) from None
    except OSError as error:
        raise UnreadableTextError(f"cannot be read ({system_reason(error)})") from None
    except ValueError:  # a NUL character, or characters that file names cannot contain
        raise UnreadableTextError("is not a valid file name") from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableTextError("is UTF-16 text, not UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableTextError("is not UTF-8 text", line=data.count(b"\n", 0, error.start) + 1) from None


def _read_regular_file(path: str, max_bytes: int) -> bytes:
    _refuse_irregular(os.stat(path), max_bytes)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        _refuse_irregular(os.fstat(descriptor), max_bytes)
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:  # grown in the meantime, or a file of /proc, whose size is 0
        raise UnreadableTextError(_too_large(max_bytes))
    return data


def _refuse_irregular(status: os.stat_result, max_bytes: int) -> None:
    if wrong := irregular_kind(status.st_mode):
        raise UnreadableTextError(wrong)
    if status.st_size > max_bytes:
        raise UnreadableTextError(_too_large(max_bytes))


def _too_large(max_bytes: int) -> str:
    return f"is larger than {max_bytes // MIB} MiB"
