"""Size-limited cache of samples from an object store, for datasets that are larger than the disk.

Unlike weights and index files (:mod:`slowfast.utils.remote.cache`), an object is not looked up again on the server once
it is in the cache: the samples of a dataset do not change.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from slowfast.utils.files import atomic_path, remove_leftovers
from slowfast.utils.private_cache import private_cache
from slowfast.utils.text import redact

FOLDER = "media"
_MAX_NAME = 80  # characters
_KEPT_SECONDS = 60.0  # a file that was used so recently is not deleted: another process may be about to open it
# The folder is measured when this process has added this share of the limit, and emptied to the second share.
_MEASURE_AFTER, _KEEP = 1 / 64, 0.9


class SampleCache:
    """Files in the folder `media` of the private cache; the least recently used ones are deleted.

    Several processes may use it at the same time.

    Args:
        limit: Total size in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._added = limit  # bytes since the folder was measured; measured before the first file is added

    def get(self, address: str, save: Callable[[Path], None]) -> Path:
        """Return the file of an address.

        Args:
            address: Address, with the position in it if the file is a part of it.
            save: Called with a path to write the file to if it is not in the cache.

        Raises:
            DiskError: If the disk of the cache is full.
        """
        path = private_cache(_file_name(address), FOLDER)
        try:
            os.utime(path)
            return path
        except FileNotFoundError:
            pass
        if self._added >= self._limit * _MEASURE_AFTER:
            self._shrink(path.parent)
        with atomic_path(path, setting="XDG_CACHE_HOME") as part:
            save(part)
            self._added += part.stat().st_size
            part.chmod(0o600)
        return path

    def _shrink(self, folder: Path) -> None:
        """Delete the least recently used files if there are more than the limit allows."""
        remove_leftovers(folder)
        files = []
        for entry in os.scandir(folder):
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # deleted by another process
                continue
            files.append((found.st_mtime, found.st_size, entry.path))
        total = sum(size for _, size, _ in files)
        self._added = 0
        if total <= self._limit:
            return
        for used, size, path in sorted(files):
            if total <= self._limit * _KEEP or time.time() - used < _KEPT_SECONDS:
                return
            Path(path).unlink(missing_ok=True)
            total -= size


def _file_name(address: str) -> str:
    """Return the file name for an address: a hash, and its last part, whose suffix readers may need."""
    last = re.sub(r"[^\w.-]+", "_", address.rpartition("/")[2], flags=re.ASCII).lstrip("._")[-_MAX_NAME:]
    return f"{hashlib.sha256(redact(address).encode('utf-8', 'surrogateescape')).hexdigest()[:32]}-{last or 'file'}"
