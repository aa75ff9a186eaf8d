"""The iopath path manager through which weights, configs and index files are found.

A handler registered here makes addresses such as ``mystore://bucket/weights.pyth`` usable wherever a config or an
option names such a file::

    from slowfast.utils.path_manager import path_manager

    path_manager().register_handler(MyStoreHandler())

Handlers fetch whole files into a local cache, so that the checks of local files (regular, not too large) apply to them.
"""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iopath.common.file_io import PathManager

# pathlib turns "//" into "/".
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(?=[^/])")


class FetchError(OSError):
    """Download error of a handler; its text follows the file name, such as "cannot be fetched: no such bucket"."""


@functools.cache
def path_manager() -> PathManager:
    """Return the package's own path manager, separate from iopath's global one."""
    from iopath.common.file_io import PathManagerFactory  # imported late: most runs only read local files

    return PathManagerFactory.get("slowfast")


def local_path(path: str | Path) -> Path:
    """Return the local path of a file, fetching it if needed.

    Args:
        path: A local path, which is returned unchanged, or an address for a registered handler.

    Raises:
        FetchError: If the handler fails.
    """
    address = _ADDRESS.match(os.fspath(path))
    if address is None or os.path.lexists(path):
        return Path(path)
    uri = f"{address[1]}://{os.fspath(path)[address.end() :]}"
    try:
        return Path(path_manager().get_local_path(uri))
    except Exception as error:  # handlers raise errors of their own libraries
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FetchError(f"cannot be fetched: {reason}") from error
