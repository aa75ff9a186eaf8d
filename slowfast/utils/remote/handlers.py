"""Handlers of iopath's path manager for http(s)://, s3:// and hf:// addresses."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

from iopath.common.file_io import PathHandler, PathManager

from slowfast.utils.remote.address import FetchError, RemoteFileMissing
from slowfast.utils.remote.cache import cached_file
from slowfast.utils.remote.http import open_http
from slowfast.utils.remote.hub import open_hub
from slowfast.utils.remote.s3 import open_s3


class RemoteHandler(PathHandler):
    """Read-only handler of files that are fetched into the cache."""

    prefixes: tuple[str, ...]

    def fetch(self, address: str) -> Path:
        """Return the local copy of a file. Raises FetchError."""
        raise NotImplementedError

    def _get_supported_prefixes(self) -> list[str]:
        return list(self.prefixes)

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        return str(self.fetch(path))

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        self._check_kwargs(kwargs)
        if mode not in ("r", "rb", "rt"):
            raise FetchError(f"cannot be opened for writing (mode {mode!r}): remote files are only read")
        return self.fetch(path).open(mode, buffering)

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        try:
            return self.fetch(path).is_file()
        except RemoteFileMissing:
            return False

    _exists = _isfile


class HttpHandler(RemoteHandler):
    """Files of web servers."""

    prefixes = ("https://", "http://")

    def fetch(self, address: str) -> Path:
        return cached_file(address, open_http)


class S3Handler(RemoteHandler):
    """Objects of S3 and of S3-compatible servers (``AWS_ENDPOINT_URL``)."""

    prefixes = ("s3://",)

    def fetch(self, address: str) -> Path:
        return cached_file(address, open_s3)


class HubHandler(RemoteHandler):
    """Files of repositories on the Hugging Face Hub."""

    prefixes = ("hf://",)

    def fetch(self, address: str) -> Path:
        return cached_file(address, open_hub)


def register_handlers(manager: PathManager) -> None:
    """Register all handlers."""
    for handler in (HttpHandler(), S3Handler(), HubHandler()):
        manager.register_handler(handler)
