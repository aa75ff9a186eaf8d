"""Paths: the path manager, and checks of output files and folders."""

from __future__ import annotations

import functools
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from slowfast.errors import UserError, system_reason
from slowfast.utils.remote.address import FetchError, RemoteFileMissing, as_address
from slowfast.utils.text import is_redacted, plain, redact

if TYPE_CHECKING:
    from iopath.common.file_io import PathManager


@functools.cache
def path_manager() -> PathManager:
    """Return the package's own path manager, separate from iopath's global one, with handlers for remote files."""
    from iopath.common.file_io import PathManagerFactory  # imported late: most runs only read local files

    from slowfast.utils.remote.handlers import register_handlers

    manager = PathManagerFactory.get("slowfast")
    register_handlers(manager)
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
