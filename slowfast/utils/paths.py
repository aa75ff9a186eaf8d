"""Input files at local paths or http(s)://, s3:// and hf:// addresses: path manager, safe reading, similar names."""

from __future__ import annotations

import codecs
import functools
import os
import stat
from itertools import islice
from pathlib import Path
from typing import IO, Any

from iopath.common.file_io import PathHandler, PathManager, PathManagerFactory

from slowfast.errors import system_reason
from slowfast.utils.files import MIB
from slowfast.utils.remote.address import FetchError, RemoteFileMissing, as_address
from slowfast.utils.remote.cache import Opener, cached_file
from slowfast.utils.remote.http import open_http
from slowfast.utils.remote.hub import open_hub
from slowfast.utils.remote.s3 import open_s3
from slowfast.utils.text import is_redacted, nearest_name, redact

MAX_FILES_COMPARED = 2000
_KINDS = {
    stat.S_IFDIR: "is a directory",
    stat.S_IFIFO: "is a named pipe, not a regular file",
    stat.S_IFSOCK: "is a socket, not a regular file",
    stat.S_IFCHR: "is a device, not a regular file",
    stat.S_IFBLK: "is a device, not a regular file",
}
_DECODED = 4 * MIB  # bytes checked at a time


class RemoteHandler(PathHandler):
    """Read-only handler of files that are fetched into the cache.

    Args:
        prefixes: Starts of the addresses.
        open_remote: Opens the file at an address; see :mod:`slowfast.utils.remote.cache`.
    """

    def __init__(self, prefixes: list[str], open_remote: Opener) -> None:
        super().__init__()
        self._prefixes, self._open_remote = prefixes, open_remote

    def _get_supported_prefixes(self) -> list[str]:
        return self._prefixes

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        return str(cached_file(path, self._open_remote))

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        if mode not in ("r", "rb", "rt"):
            raise FetchError(f"cannot be opened for writing (mode {mode!r}): remote files are only read")
        return open(self._get_local_path(path, **kwargs), mode, buffering)

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        try:
            return os.path.isfile(self._get_local_path(path))
        except RemoteFileMissing:
            return False

    _exists = _isfile


@functools.cache
def path_manager() -> PathManager:
    """Return the package's own path manager, separate from iopath's global one, with handlers for remote files."""
    manager = PathManagerFactory.get("slowfast")
    for prefixes, open_remote in ((["https://", "http://"], open_http), (["s3://"], open_s3), (["hf://"], open_hub)):
        manager.register_handler(RemoteHandler(prefixes, open_remote))
    return manager


def local_path(path: str | Path) -> Path:
    """Return the local path of a file, fetching it if needed.

    Args:
        path: A local path, which is returned unchanged, or an address for a registered handler.

    Raises:
        FetchError: If the handler fails.
    """
    address = as_address(path)
    if not address:
        return Path(path)
    if is_redacted(address):
        raise FetchError("cannot be fetched: a password or token in it is hidden (***). Give the whole address again")
    try:
        return Path(path_manager().get_local_path(address))
    except FetchError:
        raise
    except Exception as error:  # handlers raise errors of their own libraries
        reason = " ".join(redact(str(error)).split())[:200] or type(error).__name__
        raise FetchError(f"cannot be fetched: {reason}") from error


def path_exists(path: str | Path) -> bool:
    """Return whether a local path or a remote file exists. Raises FetchError if the server cannot be asked."""
    if not as_address(path):
        return os.path.exists(path)
    try:
        return local_path(path).exists()
    except RemoteFileMissing:
        return False


def irregular_kind(mode: int) -> str:
    """Return the kind of an irregular file, such as "is a directory"; an empty string for a regular file.

    Args:
        mode: `st_mode` of its status.
    """
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "is not a regular file")


def why_not_regular(path: str | Path) -> str:
    """Return why a path is not a readable regular file, such as "does not exist"; an empty string if it is one.

    Args:
        path: A local path or an address.
    """
    try:
        return irregular_kind(os.stat(local_path(path)).st_mode)
    except FetchError as error:
        return str(error)
    except PermissionError:
        return "is in a folder without access"
    except (OSError, ValueError):  # ValueError: invalid file name
        return "does not exist"


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
    """Read a UTF-8 text file without its byte order mark; see `read_text_bytes`."""
    return read_text_bytes(path, max_bytes).decode()


def read_text_bytes(path: str | Path, max_bytes: int) -> bytes:
    """Read the bytes of a UTF-8 text file, without its byte order mark.

    Pipes, devices and sockets are refused before they are opened, because reading them may never end.

    Args:
        path: A local path or an address.
        max_bytes: Size limit.

    Raises:
        UnreadableTextError: If the file is missing, not regular, larger than `max_bytes`, unreadable or not UTF-8 text.
    """
    try:
        data = _read_regular_file(os.fspath(local_path(path)), max_bytes)
    except FetchError as error:
        raise UnreadableTextError(str(error), missing=isinstance(error, RemoteFileMissing)) from None
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
    _check_utf8(data)
    return data.removeprefix(codecs.BOM_UTF8)


def _check_utf8(data: bytes) -> None:
    """Raise UnreadableTextError unless the bytes are UTF-8; checked in blocks, as decoded text takes 4x memory."""
    start = len(data) if data.isascii() else 0
    while start < len(data):
        end = start + _DECODED
        while start + _DECODED - 4 < end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1  # back to the first byte of a character
        try:
            str(memoryview(data)[start:end], "utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, start + error.start) + 1
            raise UnreadableTextError("is not UTF-8 text", line=line) from None
        start = end


def _read_regular_file(path: str, max_bytes: int) -> bytes:
    _refuse_irregular(os.stat(path), max_bytes)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        _refuse_irregular(os.fstat(descriptor), max_bytes)
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:  # it has grown, or is a file of /proc, whose size is 0
        raise UnreadableTextError(_too_large(max_bytes))
    return data


def _refuse_irregular(status: os.stat_result, max_bytes: int) -> None:
    if wrong := irregular_kind(status.st_mode):
        raise UnreadableTextError(wrong)
    if status.st_size > max_bytes:
        raise UnreadableTextError(_too_large(max_bytes))


def _too_large(max_bytes: int) -> str:
    return f"is larger than {max_bytes // MIB} MiB"


def nearest_file(path: str | Path, pattern: str = "*") -> Path | None:
    """Return the existing file with the closest name in the nearest existing folder of a missing file.

    None if no name is close.
    """
    if as_address(path):
        return None
    path = Path(path)
    try:
        folder = next((p for p in path.absolute().parents if p.is_dir()), None)
    except (OSError, ValueError):  # the name is too long or invalid
        return None
    if folder is None:
        return None
    found = [p for depth in (pattern, f"*/{pattern}") for p in islice(folder.glob(depth), MAX_FILES_COMPARED)]
    near = nearest_name(path.name, {p.name for p in found})
    best = next((p for p in found if p.name == near and p.is_file()), None) if near else None
    return best if best is None or path.is_absolute() else _as_written(best)


def file_in_sibling_folder(path: str | Path) -> Path | None:
    """Return the file of the same name in a sibling of a missing file's folder, if the folder names are alike.

    Folder names that differ only in case and punctuation come first, then misspelled ones. None if there is none.
    """
    if as_address(path):
        return None
    path = Path(path)
    try:
        folders = islice(path.parent.absolute().parent.iterdir(), MAX_FILES_COMPARED)
        names = sorted(folder.name for folder in folders if (folder / path.name).is_file())
    except (OSError, ValueError):  # no such folder, or an invalid name
        return None
    wanted = path.parent.absolute().name
    same = next((name for name in names if _letters(name) == _letters(wanted)), "")
    near = same or nearest_name(wanted, names)
    return path.parent.parent / near / path.name if near and path.parent.name else None


def _letters(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _as_written(path: Path) -> Path:
    """Return the path relative to the working directory if it is inside."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
