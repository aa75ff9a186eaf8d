"""S3 objects and a cache of samples, using boto3, which finds credentials, region and endpoint like the AWS CLI.

iopath's handler is not used: a file that is missing or forbidden fails an assertion without a message, a stale copy is
kept if it was downloaded after the object changed, as the handler's own comments say, and the cache may be a folder in
/tmp that other users can write to.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from slowfast.utils.files import atomic_path, remove_leftovers
from slowfast.utils.imports import import_extra
from slowfast.utils.private_cache import private_cache
from slowfast.utils.remote.address import FetchError, RemoteFileMissing, Unreachable
from slowfast.utils.remote.cache import Version
from slowfast.utils.text import redact

TIMEOUT = 20.0  # seconds without an answer or a byte
TRIES = 5  # requests of boto3 for one part of a file
_MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_FORBIDDEN = {
    *("401", "403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"),
    *("InvalidToken", "TokenRefreshRequired", "RequestTimeTooSkewed"),
}
FOLDER = "media"
_MAX_NAME = 80  # characters
_KEPT_SECONDS = 60.0  # recently used files are kept: another process may be about to open them
# The folder is measured whenever this process has added the first fraction of the limit, and reduced to the second.
_MEASURE_AFTER, _KEEP = 1 / 64, 0.9


def open_s3(address: str, known: Version | None) -> S3Download | None:
    """Open a remote object; return None if the known version is current. Same arguments and errors as `open_http`."""
    client, bucket, key = _locate(address)
    try:
        head = client.head_object(Bucket=bucket, Key=key)
    except Exception as error:  # botocore's errors have no common base class
        raise _explained(error, bucket) from None
    version = Version(head.get("ETag", ""), str(head.get("LastModified", "")), head["ContentLength"])
    return None if version == known else S3Download(client, bucket, key, version)


def exists_s3(address: str) -> bool:
    """Return whether an object exists. Raises FetchError if the server cannot be asked."""
    try:
        open_s3(address, None)
    except RemoteFileMissing:
        return False
    return True


def read_s3(address: str, start: int, size: int) -> bytes:
    """Return part of an object; fewer bytes than requested at its end.

    Args:
        address: Address of the object.
        start: First byte.
        size: Number of bytes, at least 1.

    Raises:
        FetchError: If it cannot be read.
    """
    client, bucket, key = _locate(address)
    try:
        answer = client.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{start + size - 1}")
        return bytes(answer["Body"].read())
    except Exception as error:  # botocore's errors have no common base class
        if getattr(error, "response", {}).get("Error", {}).get("Code") == "InvalidRange":  # starts after the end
            return b""
        raise _explained(error, bucket) from None


def _locate(address: str) -> tuple[Any, str, str]:
    """Return a client, the bucket and the key of an address. Raises FetchError if it names no object."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not bucket or not key or key.endswith("/"):
        raise FetchError("cannot be fetched: it names no file. Write s3://bucket/key")
    if "@" in bucket:
        raise FetchError(
            "cannot be fetched: credentials do not belong in an s3:// address. Set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    boto3 = import_extra("boto3", "s3", "cannot be fetched: s3://", error_type=FetchError)
    settings = frozenset(item for item in os.environ.items() if item[0].startswith("AWS_"))
    try:
        # Connections must not be shared with forked workers.
        return _client(boto3, settings, os.getpid()), bucket, key
    except Exception as error:  # raised by botocore
        raise _explained(error, bucket) from None


@functools.cache  # creating one takes half a second
def _client(boto3: Any, environment: frozenset[tuple[str, str]], process: int) -> Any:
    """Return the client of a process for the AWS variables of the environment.

    Without credentials it can read public buckets.
    """
    from botocore import UNSIGNED
    from botocore.config import Config

    session = boto3.Session()
    limits = {"connect_timeout": TIMEOUT, "read_timeout": TIMEOUT, "retries": {"total_max_attempts": TRIES}}
    if session.get_credentials() is None:
        limits["signature_version"] = UNSIGNED
    return session.client("s3", config=Config(**limits))


class S3Download:
    """Object that was found and has not been downloaded."""

    def __init__(self, client: Any, bucket: str, key: str, version: Version) -> None:
        self._client, self._bucket, self._key, self.version = client, bucket, key, version

    def save(self, part: Path, report: Callable[[int], None]) -> None:
        """Write the object. boto3 downloads parts in parallel and retries failed ones."""
        done, lock = 0, threading.Lock()

        def count(size: int) -> None:
            nonlocal done
            with lock:
                done += size
                report(done)

        try:
            with part.open("wb") as file:
                self._client.download_fileobj(self._bucket, self._key, file, Callback=count)
        except Exception as error:
            raise _explained(error, self._bucket) from None


def _explained(error: Exception, bucket: str) -> Exception:
    """Translate an error of boto3; errors while writing the file are returned unchanged."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        return _refused(error, bucket)
    if isinstance(error, (exceptions.NoCredentialsError, exceptions.PartialCredentialsError)):
        return FetchError("cannot be fetched: the credentials are incomplete. Check AWS_PROFILE and AWS_ACCESS_KEY_ID")
    if isinstance(error, (exceptions.HTTPClientError, exceptions.ConnectionError)):
        host = urlsplit(str(getattr(error, "kwargs", {}).get("endpoint_url", ""))).hostname
        return Unreachable(
            f"cannot be fetched: no connection to {host or 'the S3 server'}. Check the network and "
            "AWS_ENDPOINT_URL, or download the file elsewhere and give its path"
        )
    if isinstance(error, OSError):
        return error
    return FetchError(f"cannot be fetched: {' '.join(redact(str(error)).split())[:200]}")


def _refused(error: Any, bucket: str) -> FetchError:
    """Return the error for an error response of the server."""
    answer = error.response
    code = str(answer.get("Error", {}).get("Code", ""))
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _MISSING:
        return RemoteFileMissing(f"cannot be fetched: bucket {bucket} or the file in it does not exist")
    if code in _FORBIDDEN:
        return FetchError(
            f"cannot be fetched: the server refuses access to bucket {bucket} ({code}). Check the credentials "
            "(AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) and their permissions"
        )
    if status >= 500 or code in ("SlowDown", "RequestTimeout"):
        return Unreachable(f"cannot be fetched: the server answered {status} {code}. Try again later")
    return FetchError(f"cannot be fetched: the server answered {status} {code}")


class SampleCache:
    """Size-limited cache of samples, for datasets that are larger than the disk.

    The files are in the folder `media` of the private cache; the least recently used ones are deleted. Unlike weights
    and index files (:mod:`slowfast.utils.remote.cache`), a cached object is not looked up on the server again, because
    the samples of a dataset do not change. Several processes may use the cache at the same time.

    Args:
        limit: Total size in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._added = limit  # bytes since the folder was measured; at first, so many that it is measured

    def get(self, address: str, save: Callable[[Path], None]) -> Path:
        """Return the cached file of an address.

        Args:
            address: Address of the object, with a suffix that identifies the part if the file is only part of it.
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
    """Return the cache file name of an address: a hash and its last part, because readers may need the suffix."""
    last = re.sub(r"[^\w.-]+", "_", address.rpartition("/")[2], flags=re.ASCII).lstrip("._")[-_MAX_NAME:]
    return f"{hashlib.sha256(redact(address).encode('utf-8', 'surrogateescape')).hexdigest()[:32]}-{last or 'file'}"
