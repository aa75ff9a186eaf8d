"""Early checks that the output files and folders of a command can be written."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from slowfast.errors import UserError, system_reason
from slowfast.utils.text import plain

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
