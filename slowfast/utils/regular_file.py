"""Kinds of files: pipes, devices and sockets are refused before they are opened, because reading them may never end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "is a directory",
    stat.S_IFIFO: "is a named pipe, not a regular file",
    stat.S_IFSOCK: "is a socket, not a regular file",
    stat.S_IFCHR: "is a device, not a regular file",
    stat.S_IFBLK: "is a device, not a regular file",
}


def irregular_kind(mode: int) -> str:
    """Return what a file is instead of a regular file, such as "is a directory"; an empty string for a regular one.

    Args:
        mode: `st_mode` of its status.
    """
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "is not a regular file")


def why_not_regular(path: str | Path) -> str:
    """Return why there is no regular file, such as "does not exist"; an empty string where there is one."""
    try:
        return irregular_kind(os.stat(path).st_mode)
    except PermissionError:
        return "is in a folder without access"
    except (OSError, ValueError):  # also impossible names
        return "does not exist"
