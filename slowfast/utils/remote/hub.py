"""Files at hf://owner/repository/file[@revision] addresses: the Hugging Face Hub, with huggingface_hub.

The library finds token and endpoint (``HF_TOKEN``, ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``), downloads and resumes. Files
are kept in this package's cache, where checksums, versions and permissions are checked as for other addresses.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from slowfast.utils.files import disk_error
from slowfast.utils.imports import import_extra
from slowfast.utils.remote.address import FetchError, RemoteFileMissing, Unreachable
from slowfast.utils.remote.cache import Version
from slowfast.utils.text import redact

_PART = r"[\w.-]+"
_ADDRESS = re.compile(
    rf"hf://(?:(?P<kind>models|datasets)/)?(?P<repo>{_PART}/{_PART})(?:@(?P<early>[^/]+))?/(?P<file>.+?)"
    r"(?:@(?P<late>[^@]+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FORM = "Write hf://owner/repository/file, hf://datasets/owner/repository/file, or either with @revision"


@dataclass(frozen=True)
class HubFile:
    """File of a repository.

    Attributes:
        repo: Owner and name.
        name: Path of the file.
        revision: Branch, tag or commit; None for the default branch.
        kind: "model" or "dataset".
    """

    repo: str
    name: str
    revision: str | None
    kind: str

    @classmethod
    def parse(cls, address: str) -> HubFile:
        """Parse an address. Raises FetchError."""
        found = _ADDRESS.fullmatch(address)
        if found is None or (found["early"] and found["late"]) or found["file"].endswith("/"):
            raise FetchError(f"cannot be fetched: it names no file of a repository. {_FORM}")
        revision = (found["early"] or found["late"] or "").replace("%2F", "/") or None
        return cls(found["repo"], found["file"], revision, (found["kind"] or "models").removesuffix("s"))


def open_hub(address: str, known: Version | None) -> HubDownload | None:
    """Open a file of a repository; return None if the known version is current. Raises like `open_http`."""
    file = HubFile.parse(address)
    if known is not None and _COMMIT.fullmatch(file.revision or ""):  # a commit never changes
        return None
    hub = import_extra("huggingface_hub", "hub", "cannot be fetched: hf://", error_type=FetchError)
    with _explained(file):
        url = hub.hf_hub_url(file.repo, file.name, repo_type=file.kind, revision=file.revision)
        found = hub.get_hf_file_metadata(url)
    if found.commit_hash is None or found.etag is None:
        raise FetchError(
            "cannot be fetched: the answer is not one of the Hugging Face Hub. Check HF_ENDPOINT, and whether a proxy "
            "answers instead"
        )
    version = Version(found.etag, "", found.size)
    return None if known and known.etag == version.etag else HubDownload(hub, file, found.commit_hash, version)


class HubDownload:
    """File that was found at a commit and has not been downloaded."""

    def __init__(self, hub: Any, file: HubFile, commit: str, version: Version) -> None:
        self._hub, self._file, self._commit, self.version = hub, file, commit, version

    def save(self, part: Path, report: Callable[[int], None]) -> None:
        """Write the file."""
        file = self._file
        # The library adds metadata beside the file.
        with tempfile.TemporaryDirectory(prefix=f"{part.name}.", dir=part.parent) as folder, _explained(file):
            found = self._hub.hf_hub_download(
                file.repo,
                file.name,
                repo_type=file.kind,
                revision=self._commit,
                local_dir=folder,
                tqdm_class=_reporting_bar(report),
            )
            os.replace(os.path.realpath(found), part)


def _reporting_bar(report: Callable[[int], None]) -> type[tqdm]:
    """Return a class of invisible progress bars that report the bytes so far."""

    class Bar(tqdm):
        def __init__(self, *args: Any, initial: int = 0, **options: Any) -> None:
            options.pop("name", None)  # option of the library's own class
            super().__init__(*args, **{**options, "disable": True})
            self._bytes = initial

        def update(self, n: float | None = 1) -> bool | None:
            self._bytes += int(n or 0)
            report(self._bytes)
            return None

    return Bar


@contextmanager
def _explained(file: HubFile) -> Iterator[None]:
    """Raise FetchError for the library's errors, and hide its log, which contains signed addresses."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception as error:  # raised by the library or its HTTP client
        if disk_error(error):
            raise
        raise _problem(error, file) from None
    finally:
        logger.setLevel(before)


def _problem(error: Exception, file: HubFile) -> FetchError:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", 0)
    login = "For a private repository set HF_TOKEN, or log in with `hf auth login`"
    if "GatedRepoError" in kinds:
        return FetchError(f"cannot be fetched: access to {file.repo} must be granted on its page. Then set HF_TOKEN")
    if "RepositoryNotFoundError" in kinds:
        return FetchError(f"cannot be fetched: there is no {file.kind} repository {file.repo}. {login}")
    if "RevisionNotFoundError" in kinds:
        return RemoteFileMissing(f"cannot be fetched: {file.repo} has no revision {file.revision}")
    if "RemoteEntryNotFoundError" in kinds:
        return RemoteFileMissing(f"cannot be fetched: {file.repo} has no file {file.name}")
    if status in (401, 403):
        return FetchError(f"cannot be fetched: the Hub answered {status}. {login}")
    if "OfflineModeIsEnabled" in kinds:
        return Unreachable("cannot be fetched: HF_HUB_OFFLINE is set and the file is not in the cache")
    if status in (408, 429) or status >= 500:
        return Unreachable(f"cannot be fetched: the Hub answered {status}. Try again later")
    if kinds & {"TransportError", "ConnectionError", "Timeout", "LocalEntryNotFoundError"}:
        return Unreachable(
            "cannot be fetched: no connection to the Hugging Face Hub. Check the network and HF_ENDPOINT, or download "
            "the file elsewhere and give its path"
        )
    return FetchError(f"cannot be fetched: {' '.join(redact(str(error)).split())[:200] or type(error).__name__}")
