"""Per-user cache of files that are created once and loaded again: downloads, measurements, and compiled libraries.

Files are only loaded if no other user can have written them: a file or folder is trusted if it and all parent folders
belong to this user or root and no other user can write to them. Parent folders may also be sticky, such as ``/tmp``,
where nobody can replace the files of others, or writable for the user's private group.
"""

from __future__ import annotations

import atexit
import functools
import grp
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from slowfast.errors import system_reason
from slowfast.utils.files import atomic_path
from slowfast.utils.locks import waiting_lock
from slowfast.utils.logging import warn_once
from slowfast.utils.text_files import from_json, to_json

Value = TypeVar("Value")


def private_cache(name: str, subfolder: str = "") -> Path:
    """Return the path of a cache file, which is trusted if it exists and can be created if not.

    The cache is ``$XDG_CACHE_HOME/slowfast``, by default ``~/.cache/slowfast``, accessible to this user only. If it or
    the file is not trusted, or the file is missing and the folder is not writable, a temporary folder of this process
    is used instead, with one warning.

    Args:
        name: File name without folders.
        subfolder: Folder in the cache, by which users can delete files of one kind; created if missing.

    Raises:
        OSError: If no temporary folder can be created either.
    """
    try:
        folder = _cache_folder() / subfolder
        _create(folder)
        folder = Path(os.path.realpath(folder, strict=True))  # resolve links once, before the checks
        check_trusted(folder)
        if os.path.lexists(folder / name):
            file = Path(os.path.realpath(folder / name, strict=True))
            check_trusted(file)
            return file
        if os.access(folder, os.W_OK | os.X_OK):
            return folder / name
        reason = f"{folder} is not writable"
    except OSError as error:
        reason = f"{error.filename}: {system_reason(error)}" if error.filename else str(error)
    warn_once(
        f"cache: {reason}. Using a temporary folder for this run; set XDG_CACHE_HOME to a folder that only you can "
        "write to."
    )
    folder = _temporary_folder() / subfolder
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / name


def check_trusted(path: Path) -> None:
    """Check that no other user can change a file or folder.

    Args:
        path: Path without symbolic links.

    Raises:
        PermissionError: If another user owns or can write to the path or a folder above it, with the reason.
    """
    for place in (path, *path.parents):
        found = place.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise PermissionError(f"{place} is a symbolic link")
        if found.st_uid not in (0, os.geteuid()) and not (place != path and found.st_uid == _unmapped_root()):
            raise PermissionError(f"{place} belongs to another user (uid {found.st_uid})")
        if found.st_mode & _writable_by_others(found, above=place != path):
            raise PermissionError(f"{place} is writable by other users (mode {stat.S_IMODE(found.st_mode):o})")


def _writable_by_others(found: os.stat_result, above: bool) -> int:
    """Return the mode bits that allow other users to replace a file or, with `above`, an entry of a parent folder."""
    if above and found.st_mode & stat.S_ISVTX:
        return 0
    # Many systems give each user a private group and a umask of 002.
    return stat.S_IWOTH if above and _is_private_group(found.st_gid) else stat.S_IWOTH | stat.S_IWGRP


def _is_private_group(gid: int) -> bool:
    """Return whether a group is private: named like this user and without other members."""
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


@functools.cache
def _unmapped_root() -> int | None:
    """Return the uid that owns root's folders in a user namespace (rootless container), else None."""
    try:
        mapped = Path("/proc/self/uid_map").read_text().split()
        return None if mapped == ["0", "0", "4294967295"] else int(Path("/proc/sys/kernel/overflowuid").read_text())
    except OSError:
        return None


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # relative paths are ignored by the XDG standard
        base = os.path.expanduser("~/.cache")
        if not os.path.isabs(base):
            raise OSError("HOME is not set and the user has no home folder")
    return Path(base) / "slowfast"


def _create(folder: Path) -> None:
    """Create a folder and its missing parents, accessible to this user only regardless of the umask."""
    missing = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    for place in reversed(missing):
        try:
            place.mkdir(mode=0o700)
        except FileExistsError:  # created by another process; checked like any other
            pass


@functools.cache
def _temporary_folder() -> Path:
    """Return a temporary folder of this process, deleted at exit."""
    folder = Path(tempfile.mkdtemp(prefix="slowfast-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def cached_json(
    name: str, what: str, load: Callable[[Any], Value | None], measure: Callable[[], Any | None]
) -> Value | None:
    """Return a value from a JSON file in the cache; measure and store it if the file is missing or damaged.

    Of the processes that need the value at the same time, the first one measures and the others wait, so that all of
    them use the same value. Without a writable cache, each process measures for itself.

    Args:
        name: File name without folders, with a digest of everything that the value depends on.
        what: What is measured, for messages.
        load: Converts the content of the file to the value; None, KeyError, TypeError or ValueError if it is invalid.
        measure: Returns the content of the file; None if that is impossible now, and nothing is stored.

    Returns:
        The value; None if it could not be measured.
    """
    try:
        file = private_cache(name)
    except OSError:
        content = measure()
        return None if content is None else load(content)
    found = _load(file, load)
    if found is not None:
        return found
    with waiting_lock(file.with_suffix(".lock"), f"measure {what}"):
        found = _load(file, load)
        if found is None and (content := measure()) is not None:
            found = _load(file, load)  # on a file system without locks, another process may have been faster
            if found is None:
                found = load(content)
                _store(file, content)
    return found


def _load(file: Path, load: Callable[[Any], Value | None]) -> Value | None:
    try:
        return load(from_json(file.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write_private(file: Path, text: str) -> None:
    """Write a file of the cache atomically, so that no other user can write to it, regardless of the umask."""
    with atomic_path(file) as part:
        part.touch(mode=0o600)
        part.write_text(text, encoding="utf-8")


def _store(file: Path, content: Any) -> None:
    try:
        write_private(file, to_json(content))
    except OSError as error:
        warn_once(f"{file} cannot be written ({system_reason(error)}); the next run will measure again")


def find_compiler() -> str:
    """Return the path of the C++ compiler: CXX, c++, g++ or clang++; "" if there is none."""
    return next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), "")


def compiled_library(name: str, sources: Sequence[Path], flags: Sequence[str], depends_on: bytes = b"") -> Path:
    """Return the shared library compiled from C++ sources, from the cache if sources, flags and compiler match.

    Args:
        name: Prefix of the file name in the cache.
        sources: C++ files and their headers.
        flags: Compiler flags.
        depends_on: Anything else that the library depends on, such as the CPU.

    Raises:
        OSError: If there is no compiler or compilation fails.
    """
    compiler = find_compiler()
    if not compiler:
        raise OSError("No C++ compiler found. Install one (g++) or set CXX")
    command = [compiler, *flags]
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    content = [file.read_bytes() for file in sources]
    what = b"\0".join((*content, " ".join(command).encode(), version, depends_on))
    library = private_cache(f"{name}-{hashlib.sha256(what).hexdigest()[:32]}.so")
    if not library.exists():
        # Another process may be compiling it at the same time.
        with tempfile.TemporaryDirectory(dir=library.parent) as own:
            made = Path(own) / library.name
            files = [str(file) for file in sources if file.suffix == ".cpp"]
            result = subprocess.run([*command, *files, "-o", str(made)], capture_output=True, text=True)
            if result.returncode:
                raise OSError(f"{compiler} failed: {result.stderr.strip().splitlines()[-1:]}")
            made.chmod(0o700)  # regardless of the umask, no other user may write to it
            made.replace(library)
    return library
