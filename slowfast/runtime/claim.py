"""A folder that one run at a time writes to."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slowfast.errors import ConfigError


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the folder until the block ends, or the process does. Raises ConfigError where another process holds it.

    Disks that know no locks are trusted.
    """
    try:
        opened = (folder / ".claimed").open("a")
    except OSError as error:
        raise ConfigError(f"OUTPUT_DIR {folder} cannot be written to: {(error.strerror or '').lower()}") from error
    with opened as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # flock would be held by workers that outlive us
        except (BlockingIOError, PermissionError) as error:
            raise ConfigError(
                f"OUTPUT_DIR {folder}: another run is training there; wait for it, or choose another OUTPUT_DIR"
            ) from error
        except OSError:
            pass
        yield
