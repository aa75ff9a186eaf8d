"""Addresses of files: recognition, checksums, and paths relative to an address. Imports nothing heavy."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

CHECKSUM = "#sha256="
# pathlib turns "//" into "/".
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(?=[^/])")
_DIGEST = re.compile(r"[0-9a-f]{64}")
# The root that relative paths cannot leave: host, bucket, or repository.
_WEB = re.compile(r"https?://[^/?#]+/?")
_ROOTS = {
    "http": _WEB,
    "https": _WEB,
    "s3": re.compile(r"s3://[^/]+/?"),
    "hf": re.compile(r"hf://(?:(?:datasets|models)/)?[^/]+/[^/]+/?"),
}


class FetchError(OSError):
    """Download error whose text is appended to the file name, such as "cannot be fetched: the server answered 404"."""


class RemoteFileMissing(FetchError):
    """Error for a server that was reached but has no such file."""


class Unreachable(FetchError):
    """Error for a server that is unreachable or overloaded; a cached copy may still be used."""


def as_address(path: str | Path) -> str:
    """Return an address with its scheme in lower case and "//" after it; an empty string for a local path.

    An existing path is local, regardless of its name.
    """
    text = os.fspath(path)
    found = _ADDRESS.match(text)
    if found is None or os.path.lexists(path):
        return ""
    return f"{found[1].lower()}://{text[found.end() :]}"


def split_checksum(address: str) -> tuple[str, str]:
    """Split an address from the SHA-256 after ``#sha256=``, in lower case; an empty string if there is none.

    Raises:
        FetchError: If it is not 64 hexadecimal digits.
    """
    place, mark, digest = address.rpartition(CHECKSUM)
    if not mark:
        return address, ""
    if not _DIGEST.fullmatch(digest.lower()):
        raise FetchError(f"cannot be fetched: {CHECKSUM} must be followed by 64 hexadecimal digits")
    return place, digest.lower()


def join_path(folder: str | Path, name: str) -> str | Path:
    """Return the path or address of a file in a folder.

    The user, the query and the revision of the folder's address are kept: ``https://host/data?token=x`` and
    ``train.csv`` give ``https://host/data/train.csv?token=x``.
    """
    address = as_address(folder)
    if not address:
        return Path(folder) / name
    root, path, end = _split(address)
    return root + posixpath.join(path, name) + end


def sibling_path(file: str | Path, name: str) -> str | Path:
    """Return the path or address of a file named relative to the folder of another one; see :func:`join_path`."""
    address = as_address(file)
    if not address:
        return Path(file).parent / name
    if as_address(name):
        return name
    root, path, end = _split(split_checksum(address)[0])
    joined = posixpath.normpath(posixpath.join("/", posixpath.dirname(path), name))
    return root + joined.lstrip("/") + end


def _split(address: str) -> tuple[str, str, str]:
    """Split an address into root, path, and what follows the path: a query, or the revision of a repository."""
    scheme = address.partition(":")[0]
    root = _ROOTS.get(scheme, re.compile(r"[^:]+://")).match(address)
    if root is None:
        return address, "", ""
    path, start = address[root.end() :], root[0]
    mark = {"http": "?", "https": "?", "hf": "@"}.get(scheme, "")
    end = ""
    if mark:
        path, found, rest = path.partition(mark)
        end = found + rest
    return (start if start.endswith("/") else f"{start}/"), path, end
