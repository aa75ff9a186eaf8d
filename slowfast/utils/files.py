"""Output files and folders: checks before the work, atomic writing, disk errors, and clean-up of unfinished files."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from slowfast.errors import DiskError, UserError, system_reason
from slowfast.utils.remote.address import as_address
from slowfast.utils.text import plain

MIB = 2**20
_FREE_SPACE = "Free some space, then run this again"
# Problem and remedy of each error number.
_PROBLEMS = {
    errno.ENOSPC: ("is full", _FREE_SPACE),
    errno.EDQUOT: ("is full for this user: the quota is used up", _FREE_SPACE),
    errno.EFBIG: ("does not take a file of this size", "Raise the limit (ulimit -f) or choose another folder"),
    errno.EROFS: ("is read-only", "Choose another folder"),
}
_NO_ACCESS = (errno.EACCES, errno.EPERM)
_PART = re.compile(r"\.(?P<name>.+)-(?P<process>\d+)\.part(?:\.\w+)?", re.DOTALL)
# Seconds since the last write after which an unfinished file of another machine counts as abandoned.
_FOREIGN_AGE = 3600.0
# Limits of file systems; the path limit leaves room for file names in the folder.
MAX_PATH_BYTES, MAX_NAME_BYTES = 4096 - 256, 255
_MAX_FILE_NAME_BYTES = 200  # temporary names are longer than final ones


def check_output_file(path: Path, option: str, suffixes: Collection[str] = ()) -> None:
    """Raise UserError unless a file can be written.

    Args:
        path: The file; missing folders are created later.
        option: Option or key that names the file, such as "--out".
        suffixes: Allowed file name suffixes; any if empty.
    """
    where = f"{option} {plain(path)}"
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"{where}: the name must end in {' or '.join(suffixes)}")
    if os.path.isdir(path):  # also False if the name is too long
        raise UserError(f"{where} is a directory. Name a file")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise UserError(f"{where} is not a regular file. Choose another one")
    check_output_folder(path.parent, option)
    if len(os.fsencode(path.name)) > _MAX_FILE_NAME_BYTES:
        raise UserError(f"{where}: the name is longer than {_MAX_FILE_NAME_BYTES} bytes. Choose a shorter one")


def check_output_folder(folder: Path, option: str) -> None:
    """Raise UserError unless the folder named by an option is writable or can be created."""
    where = f"{option} {plain(folder)}"
    if address := as_address(folder):
        raise UserError(f"{option} {plain(address)} is an address. Choose a local folder")
    names = [os.fsencode(name) for name in folder.absolute().parts]
    if any(len(name) > MAX_NAME_BYTES for name in names) or sum(map(len, names)) + len(names) > MAX_PATH_BYTES:
        raise UserError(f"{where}: the path is too long. Choose a shorter one")
    try:
        existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(p))
        is_directory = existing.is_dir()
    except (OSError, ValueError):
        raise UserError(f"{where} is not a valid path. Choose another one") from None
    if not is_directory:
        raise UserError(f"{where}: {plain(existing)} is not a directory. Choose another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{where}: {plain(existing)} is not writable. Choose another folder")


def make_output_folder(folder: Path, option: str) -> None:
    """Create a folder and its parents. Raises UserError on failure."""
    check_output_folder(folder, option)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = system_reason(error)
        raise UserError(f"{option} {plain(folder)} cannot be created ({reason}). Choose another folder") from None


@contextmanager
def atomic_path(
    place: Path, mark: str = "", suffix: str = "", replace_folder: bool = False, setting: str = ""
) -> Iterator[Path]:
    """Write a file or folder atomically: yield a temporary path that is renamed on success and deleted on failure.

    The parent folder is created. The file is synced to disk before it is renamed and the folder entry after, so that
    either the old or the new file survives a power failure.

    Args:
        place: Final path of the file or folder.
        mark: End of a folder's name, such as ".frames", by which :func:`remove_leftovers` finds it.
        suffix: Suffix of the temporary name, for writers that infer the format from it.
        replace_folder: Replace an existing folder. By default an existing folder is kept, because another process
            finished first.
        setting: Config key that names the folder, for error messages.

    Raises:
        DiskError: If the disk is full or not writable.
    """
    part = place.with_name(f".{place.name}{mark}.{part_owner()}.part{suffix}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if part.is_file():
            _flush(part)
        _move(part, place, replace_folder)
        _flush(place.parent)
    except Exception as error:
        failure = disk_error(error, place, setting)
        if failure is None or failure is error:
            raise
        raise failure from error
    finally:
        _remove(part)


def atomic_write_text(path: Path, text: str, setting: str = "") -> None:
    """Write a text file atomically, see :func:`atomic_path`."""
    # surrogateescape: file names may not be valid UTF-8
    with (
        atomic_path(path, setting=setting) as part,
        part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        file.write(text)


class ReportingFile:
    """Binary file that records its first failed write, for writers that hide the OSError behind their own error."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write bytes."""
        try:
            return self._file.write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def reporting_file(path: Path) -> Iterator[Any]:
    """Open a new binary file and raise the OSError of a failed write, even if the writer turns it into another."""
    file = ReportingFile(path.open("wb"))
    try:
        yield file
    except Exception as error:
        if file.failure is not None and error is not file.failure:
            raise file.failure from error
        raise
    finally:
        file.close()


def disk_error(error: BaseException, place: Path | None = None, setting: str = "") -> DiskError | None:
    """Return the user error for a failed write; None if the exception has another cause.

    Args:
        error: Exception of Python, FFmpeg or any other writer.
        place: The file being written. If unknown, a permission error does not count as a disk error.
        setting: Config key that names the folder.
    """
    if isinstance(error, DiskError):
        return error
    number = getattr(error, "errno", None)
    if number in _PROBLEMS:
        problem, advice = _PROBLEMS[number]
        name = getattr(error, "filename", None)
        place = Path(str(name)) if place is None and name else place
        if place is None:
            places = "of the output folder, of temporary files (TMPDIR) or of shared memory (/dev/shm)"
            text = f"Cannot write: the disk {places} {problem}. {advice}"
        else:
            text = f"Cannot write {place}: the disk of {_folder(place, setting)} {problem}. {advice}"
    elif number in _NO_ACCESS and place is not None and _names_folder_of(error, place):
        text = f"Cannot write {place}: no permission to write to {_folder(place, setting)}. Choose another folder"
    else:
        return None
    return DiskError(text, number or 0)


def _folder(place: Path, setting: str) -> str:
    return f"{setting} {place.parent}".lstrip()


def _names_folder_of(error: BaseException, place: Path) -> bool:
    """Check that the files an error names, if any, lie in a folder on the path."""
    named = {getattr(error, "filename", None), getattr(error, "filename2", None)} - {None}
    return all(Path(str(name)).parent in (place.parent, *place.parents) for name in named)


def remove_leftovers(folder: Path, mark: str = "", *, recursive: bool = False, every: bool = False) -> None:
    """Delete unfinished files and folders of processes that no longer run.

    Those of other machines are deleted an hour after their last write.

    Args:
        folder: Folder to clean up.
        mark: End of the final names, such as ".mp4"; empty for any name.
        recursive: Include subfolders.
        every: Delete those of other machines regardless of age, because no other machine writes to the folder.
    """
    host = socket.gethostname()
    found: Iterable[Path] = folder.rglob(".*.part*") if recursive else folder.glob(".*.part*")
    for path in list(found):
        match = _PART.fullmatch(path.name)
        if match is None:
            continue
        if match["name"].endswith(f"{mark}.{host}"):
            left_over = not _is_owned(path, int(match["process"]))
        else:
            left_over = f"{mark}." in match["name"] and (every or _age(path) > _FOREIGN_AGE)
        if left_over:
            _remove(path)


def part_owner() -> str:
    """Return host name and process ID as used in the names of unfinished files."""
    return f"{socket.gethostname()}-{os.getpid()}"


def _is_owned(path: Path, number: int) -> bool:
    """Return whether the process that owns an unfinished file is still running."""
    try:
        process = psutil.Process(number)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= path.stat().st_mtime + 1
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, OSError):
        return True


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _move(part: Path, place: Path, replace_folder: bool) -> None:
    if replace_folder and place.is_dir():
        old = part.with_name(f"{part.name}.old")
        os.replace(place, old)
        os.replace(part, place)
        _remove(old)
        return
    try:
        os.replace(part, place)
    except OSError:
        if not (part.is_dir() and place.is_dir()):
            raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:  # read-only disk: the original error is the one to report
        pass


def _flush(path: Path) -> None:
    """Sync a file or the entries of a folder to disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not supported by this file system
            raise
    finally:
        os.close(file)
