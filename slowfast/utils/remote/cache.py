"""Cache of downloaded files: keyed by address, revalidated with the server, verified, written atomically.

Files are in ``downloads`` of the private cache, each with a JSON file with its version (ETag, date, size) and a lock
file. Secrets are removed from an address before its hash names the file.
"""

from __future__ import annotations

import functools
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from slowfast.errors import DiskError
from slowfast.utils.files import MIB, atomic_path, remove_leftovers
from slowfast.utils.launch import is_main_process
from slowfast.utils.locks import waiting_lock
from slowfast.utils.logging import get_logger, warn_once
from slowfast.utils.private_cache import private_cache
from slowfast.utils.remote.address import FetchError, Unreachable, split_checksum
from slowfast.utils.screen import Progress, phase
from slowfast.utils.text import plain, redact
from slowfast.utils.text_files import from_json, write_json

FOLDER = "downloads"
_MAX_NAME = 80  # characters
_SHOW_FROM = 16 * MIB  # bytes from which progress is shown
_HEAD = 512  # bytes searched for the start of a web page
_PAGE = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype html|html)\b", re.IGNORECASE | re.DOTALL)
# Parameters of signed addresses, which differ each time although the file is the same.
_SIGNATURE = re.compile(r"(?<=[?&])(?:x-amz-|x-goog-|expires=|awsaccesskeyid=|googleaccessid=)[^&]*&?", re.IGNORECASE)


@dataclass(frozen=True)
class Version:
    """Version of a remote file.

    Attributes:
        etag: Entity tag; "" if the server sends none.
        modified: Date of the last change as the server writes it; "" if it sends none.
        size: Size in bytes; None if unknown.
    """

    etag: str = ""
    modified: str = ""
    size: int | None = None


class Download(Protocol):
    """Remote file that is about to be downloaded."""

    @property
    def version(self) -> Version:
        """Version of the file; final when `save` has returned."""

    def save(self, part: Path, report: Callable[[int], None]) -> None:
        """Write the whole file and report the number of bytes written so far. Raises FetchError."""


# Takes an address without a checksum and the version in the cache, if any; returns None if that is still current.
Opener = Callable[[str, Version | None], Download | None]


def cached_file(address: str, open_remote: Opener) -> Path:
    """Return the file at an address, from the cache if it is current.

    A file with the checksum that the address names is current. Otherwise the server is asked once in each process; if
    it cannot be reached, the copy in the cache is used, with a warning.

    Args:
        address: Address, with an optional ``#sha256=``.
        open_remote: Opens the remote file.

    Raises:
        FetchError: If the file cannot be downloaded or verified.
    """
    known = _current.get(address)
    if known is not None and _stamp(known[0]) == known[1]:
        return known[0]
    place, digest = split_checksum(address)
    entry = Entry(private_cache(cache_name(place), FOLDER), redact(place))
    try:
        with waiting_lock(entry.lock, f"download {entry.shown}"):
            path = entry.update(functools.partial(open_remote, place), digest)
    except DiskError as error:
        raise FetchError(f"cannot be fetched: {_lower_first(str(error))}") from error
    _current[address] = path, _stamp(path)
    return path


# Files that this process has found to be current, with size and time of change.
_current: dict[str, tuple[Path, tuple[int, int]]] = {}


def cache_name(address: str) -> str:
    """Return the file name for an address: a hash, and the last part of its path; neither contains a secret."""
    public = redact(_SIGNATURE.sub("", address).rstrip("?&"))
    last = re.split(r"[?#]", public)[0].rstrip("/").rpartition("/")[2]
    name = re.sub(r"[^\w.-]+", "_", last, flags=re.ASCII).lstrip("._")[-_MAX_NAME:]
    return f"{hashlib.sha256(public.encode()).hexdigest()[:24]}-{name or 'file'}"


@dataclass
class Entry:
    """Place of one file in the cache.

    Args:
        file: Path of the file.
        shown: The address without secrets, for messages.
    """

    file: Path
    shown: str

    @property
    def lock(self) -> Path:
        """Path of the lock file."""
        return self.file.with_name(f"{self.file.name}.lock")

    @property
    def info(self) -> Path:
        """Path of the description."""
        return self.file.with_name(f"{self.file.name}.json")

    def update(self, open_remote: Callable[[Version | None], Download | None], digest: str) -> Path:
        """Return the file; download it if it is missing, has the wrong checksum, or the server has a newer version.

        Args:
            open_remote: Opens the remote file, see `Opener`.
            digest: Wanted SHA-256; "" for none.
        """
        version = self._version()
        if digest and version is not None:
            if sha256_of(self.file) == digest:
                return self.file
            version = None
        try:
            download = open_remote(version)
        except Unreachable as error:
            if version is None:
                raise
            warn_once(f"{self.shown} {error}. Using the copy of {self._date()} in the cache")
            return self.file
        if download is not None:
            self._write(download, digest)
        return self.file

    def _version(self) -> Version | None:
        """Return the version of the file; None if it is missing or has been modified."""
        try:
            if not self.file.exists():
                return None
            version = Version(**from_json(self.info.read_bytes())["version"])
            return version if self.file.stat().st_size == version.size else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _date(self) -> str:
        return f"{datetime.fromtimestamp(self.file.stat().st_mtime):%Y-%m-%d %H:%M}"

    def _write(self, download: Download, digest: str) -> None:
        remove_leftovers(self.file.parent)
        self._check_space(download.version.size)
        size = download.version.size
        get_logger().info(f"Downloading {self.shown}" + ("" if size is None else f" ({_size_text(size)})"))
        with atomic_path(self.file) as part:
            with _report(self.file.name.partition("-")[2], size) as report:
                download.save(part, report)
            part.chmod(0o600)  # regardless of the umask, no other user may write to it
            self._check(part, download.version.size, digest)
            self.info.unlink(missing_ok=True)  # never describes another file
        version = {**asdict(download.version), "size": self.file.stat().st_size}
        write_json(self.info, {"address": self.shown, "version": version})

    def _check_space(self, size: int | None) -> None:
        free = shutil.disk_usage(self.file.parent).free
        if size is not None and size > free:
            raise FetchError(
                f"cannot be fetched: it needs {_size_text(size)}, but only {_size_text(free)} are free for the cache "
                f"{plain(self.file.parent)}. Free some space, or set XDG_CACHE_HOME to a folder on another disk"
            )

    def _check(self, part: Path, size: int | None, digest: str) -> None:
        """Raise FetchError unless a download is complete, matches the address's checksum and is not a web page."""
        found = part.stat().st_size
        if size is not None and found != size:
            raise FetchError(f"cannot be fetched: the server announced {size} bytes and sent {found}")
        if digest and (other := sha256_of(part)) != digest:
            raise FetchError(
                f"cannot be fetched: its SHA-256 is {other}, not {digest} as in the address. Check both; the file may "
                "have been replaced"
            )
        with part.open("rb") as file:
            head = file.read(_HEAD)
        if not digest and _PAGE.match(head):
            raise FetchError(web_page("text/html"))


def web_page(kind: str) -> str:
    """Return the text of the error for a web page where a file was expected."""
    return (
        f"cannot be fetched: the server sent a web page ({kind}) instead of a file. Use the address of the file "
        "itself, as a download link has it"
    )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _size_text(size: int) -> str:
    return f"{size / 1e3:.1f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


@contextmanager
def _report(name: str, size: int | None) -> Iterator[Callable[[int], None]]:
    """Show the progress of a large download in the main process; yield a function of the bytes so far."""
    if size is None or size < _SHOW_FROM:
        with phase(f"downloading {name}"):
            yield lambda done: None
        return
    total = -(-size // MIB)
    progress = Progress(name, total, "MiB", is_main_process(), max(total // 10, 1))

    def report(done: int) -> None:
        step = (total if done == size else done // MIB) - progress.done
        if step:
            progress.advance(count=step)

    try:
        yield report
    finally:
        progress.close()
