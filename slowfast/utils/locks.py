"""Locks between processes: of an output folder, held by one run at a time, and of a file that one of them creates."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from slowfast.errors import ConfigError, system_reason
from slowfast.utils.logging import get_logger

TRAINING, TESTING = ".claimed", ".claimed_test"  # lock files in OUTPUT_DIR
_DOING = {TRAINING: "training", TESTING: "testing"}
_POLL = 0.1  # seconds
_TELL_AFTER = 2.0  # seconds to wait for another process before reporting the wait
_threads = threading.RLock()  # a file lock does not exclude the threads of a process


@contextmanager
def waiting_lock(path: Path, work: str) -> Iterator[None]:
    """Hold a lock file, waiting for the process that holds it.

    Without locks (a read-only folder, some network file systems) all processes enter at once.

    Args:
        path: Lock file; created if missing.
        work: What the other process does, for a message during a longer wait, such as "download https://...".
    """
    with _threads:
        file = _open_to_lock(path)
        try:
            if file is not None:
                _wait(file, work)
            yield
        finally:
            if file is not None:
                file.close()


def _open_to_lock(path: Path) -> TextIO | None:
    try:
        return path.open("a")
    except OSError:
        return None


def _wait(file: TextIO, work: str) -> None:
    announced, began = False, time.monotonic()
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except (BlockingIOError, PermissionError):
            if not announced and time.monotonic() - began > _TELL_AFTER:
                get_logger().info(f"Waiting for another process to {work}")
                announced = True
            time.sleep(_POLL)
        except OSError:
            return


def is_locked(folder: Path, name: str) -> bool:
    """Return whether another process holds a lock of a folder, without taking it; False on file systems without locks.

    Args:
        folder: OUTPUT_DIR.
        name: TRAINING or TESTING.
    """
    linux = sys.platform == "linux"
    # struct flock: type, whence, start, length, process; in another order on BSD and macOS.
    layout, question = ("hhqqi", (fcntl.F_WRLCK, 0, 0, 0, 0)) if linux else ("qqihh", (0, 0, 0, fcntl.F_WRLCK, 0))
    try:
        with (folder / name).open("rb") as file:
            found = struct.unpack(layout, fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(layout, *question)))
    except OSError:
        return False
    return bool(found[0 if linux else 3] != fcntl.F_UNLCK)


class FolderLock:
    """Lock on one kind of results in OUTPUT_DIR.

    The operating system releases the lock when the process ends. `release` removes the files and empty folders that
    `acquire` created, so that a refused run leaves no trace. On file systems without locks every run is admitted.

    Args:
        folder: OUTPUT_DIR; created if missing.
        name: TRAINING or TESTING.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._path = folder, folder / name
        self._file: TextIO | None = None
        self._made_file = False
        self._made_folders: list[Path] = []

    def acquire(self) -> bool:
        """Try to take the lock and return whether this process holds it.

        Raises:
            ConfigError: If OUTPUT_DIR is not writable.
        """
        while True:
            file = self._open()
            try:
                # Not flock, which worker processes that outlive this one would inherit.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                file.close()
                return False
            except OSError:  # file system without locks
                pass
            if self._is_current(file):
                self._file = file
                return True
            file.close()  # removed by its previous holder in the meantime

    def _open(self) -> TextIO:
        try:
            missing = [place for place in (self._folder, *self._folder.parents) if not place.exists()]
            self._folder.mkdir(parents=True, exist_ok=True)
            self._made_folders += missing  # innermost first
            self._made_file = not self._path.exists()
            return self._path.open("a")
        except OSError as error:
            self._remove_folders()
            raise ConfigError(f"OUTPUT_DIR {self._folder} cannot be written to: {system_reason(error)}") from error

    def _is_current(self, file: TextIO) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return there.st_ino == os.fstat(file.fileno()).st_ino

    def release(self) -> None:
        """Release the lock, if held, and remove the files and folders created for it."""
        if self._file is None:
            return
        if self._made_file:
            self._path.unlink(missing_ok=True)
        self._file.close()
        self._file = None
        self._remove_folders()

    def _remove_folders(self) -> None:
        for folder in self._made_folders:
            try:
                folder.rmdir()
            except OSError:  # not empty
                return


@contextmanager
def exclusive_lock(folder: Path, name: str) -> Iterator[None]:
    """Hold a lock while in the context.

    Raises:
        ConfigError: If another run holds it or OUTPUT_DIR is not writable.
    """
    lock = FolderLock(folder, name)
    if not lock.acquire():
        raise ConfigError(
            f"OUTPUT_DIR {folder}: another run is {_DOING[name]} there. Wait for it, or choose another OUTPUT_DIR"
        )
    try:
        yield
    finally:
        lock.release()
