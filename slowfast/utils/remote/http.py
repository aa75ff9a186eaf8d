"""Files at http:// and https:// addresses.

iopath's handler is not used: it names cached files by their path alone, so that two hosts share a file, and by their
query, which may be a secret; it has no timeout, does not revalidate, and does not resume.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.parse import SplitResult, quote, unquote, urlsplit

from slowfast.errors import system_reason
from slowfast.utils.remote.address import FetchError, RemoteFileMissing, Unreachable
from slowfast.utils.remote.cache import Version, web_page

TIMEOUT = 20.0  # seconds without an answer or a byte
TRIES = 5  # consecutive connections that transfer nothing
PAUSE = 1.0  # seconds before the second connection, doubled before each further one
_CHUNK = 2**20
_OVERLOADED = (HTTPStatus.TOO_MANY_REQUESTS, 500, 502, 503, 504)
_PAGES = ("text/html", "application/xhtml+xml")


def open_http(address: str, known: Version | None) -> HttpDownload | None:
    """Open a remote file; return None if the known version is current.

    Args:
        address: ``http://`` or ``https://`` address; ``user:password@`` is sent as basic authentication.
        known: Version in the cache.

    Raises:
        Unreachable: If the server does not answer or is overloaded.
        RemoteFileMissing: If there is no such file.
        FetchError: If the server refuses, or sends a web page.
    """
    response = _send(address, _conditions(known), tries=1 if known else TRIES)
    if response is None:
        return None
    version = _version_of(response.headers, response.headers.get("Content-Length"))
    if known and _is_same(known, version):
        response.close()
        return None
    kind = response.headers.get_content_type()
    if kind in _PAGES:
        response.close()
        raise FetchError(web_page(kind))
    return HttpDownload(address, response, version)


class HttpDownload:
    """Response whose body has not been read.

    Args:
        address: Address, to connect again.
        response: The response.
        version: Version of the file.
    """

    def __init__(self, address: str, response: Any, version: Version) -> None:
        self._address, self._response, self.version = address, response, version

    def save(self, part: Path, report: Callable[[int], None]) -> None:
        """Write the body; after a cut connection, resume or, if the server cannot do that, restart."""
        with part.open("wb") as file:
            self._save(file, report)

    def _save(self, file: BinaryIO, report: Callable[[int], None]) -> None:
        furthest, failures = 0, 0
        complete = self._copy(file, report)
        while not complete:
            failures = 0 if file.tell() > furthest else failures + 1
            furthest = max(furthest, file.tell())
            if failures == TRIES:
                total = "" if self.version.size is None else f" of {self.version.size}"
                raise Unreachable(
                    f"cannot be fetched: the connection was cut after {furthest}{total} bytes, {TRIES} times in a row. "
                    "Try again later"
                )
            time.sleep(PAUSE * 2**failures)
            try:
                self._connect_again(file)
            except Unreachable:
                continue
            complete = self._copy(file, report)

    def _copy(self, file: BinaryIO, report: Callable[[int], None]) -> bool:
        """Append the body and return whether it is complete."""
        with self._response:
            while True:
                try:
                    chunk = self._response.read1(_CHUNK)  # read() would lose what came before a cut
                except (OSError, http.client.HTTPException):
                    return False
                if not chunk:
                    break
                file.write(chunk)
                report(file.tell())
        return self.version.size is None or file.tell() >= self.version.size

    def _connect_again(self, file: BinaryIO) -> None:
        """Request the rest of the file, or the whole file if it has changed or the server does not support ranges."""
        done, version = file.tell(), self.version
        # A weak ETag does not guarantee identical bytes.
        same = version.modified if version.etag.startswith("W/") or not version.etag else version.etag
        headers = {"Range": f"bytes={done}-", "If-Range": same} if done and same else {}
        response = _send(self._address, headers, tries=1)
        assert response is not None  # no condition was sent
        self._response = response
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            if _first_byte(response.headers) == done:
                return
            response.close()
            raise FetchError("cannot be fetched: the server sent a different part of the file than requested")
        file.seek(0)
        file.truncate()
        self.version = _version_of(response.headers, response.headers.get("Content-Length"))


def _is_same(known: Version, now: Version) -> bool:
    """Compare versions if the server does not answer 304: by ETag, else by date, else by size."""
    if now.etag or now.modified:
        return (known.etag, known.modified) == (now.etag, now.modified)
    return known.size == now.size


def _conditions(known: Version | None) -> dict[str, str]:
    if known is None:
        return {}
    if known.etag:
        return {"If-None-Match": known.etag}
    return {"If-Modified-Since": known.modified} if known.modified else {}


def _version_of(headers: http.client.HTTPMessage, length: str | None) -> Version:
    size = int(length) if length and length.isascii() and length.isdecimal() else None
    return Version(headers.get("ETag", ""), headers.get("Last-Modified", ""), size)


def _first_byte(headers: http.client.HTTPMessage) -> int:
    """Return the position of the first byte of a partial response; -1 if it is not given."""
    text = headers.get("Content-Range", "").removeprefix("bytes").strip().partition("-")[0]
    return int(text) if text.isascii() and text.isdecimal() else -1


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but not from https to http; credentials stay with the server they are for."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if (old.scheme, new.scheme) == ("https", "http"):
            raise FetchError(f"cannot be fetched: {old.hostname} redirects from https to http, which is not followed")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        login = req.unredirected_hdrs.get("Authorization")
        if request is not None and login and (old.scheme, old.netloc) == (new.scheme, new.netloc):
            request.add_unredirected_header("Authorization", login)
        return request


class _Overloaded(Unreachable):
    """Error for a server that did not answer in time or asks to retry later."""


def _send(address: str, headers: dict[str, str], tries: int) -> Any:
    """Return the response to a GET request; None for 304, not modified.

    Args:
        address: The address.
        headers: Additional request headers.
        tries: Number of requests to an overloaded server.
    """
    try:
        parts = urlsplit(address)
        request = _request(parts, headers)
    except ValueError:
        raise _invalid() from None
    for attempt in range(1, tries):
        try:
            return _open(request, parts.hostname or "")
        except _Overloaded:
            time.sleep(PAUSE * 2 ** (attempt - 1))
    return _open(request, parts.hostname or "")


def _open(request: urllib.request.Request, host: str) -> Any:
    try:
        response = urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.NOT_MODIFIED:
            return None
        raise _refused(error.code) from None
    except FetchError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _no_connection(error, host) from None
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        response.close()
        raise FetchError(f"cannot be fetched: the server compresses it ({encoding}), although it was asked not to")
    return response


def _request(parts: SplitResult, headers: dict[str, str]) -> urllib.request.Request:
    """Return a request with user and password moved from the address to a header and special characters quoted."""
    host = parts.netloc.rpartition("@")[2]
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    url = f"{parts.scheme}://{host}{path or '/'}" + (f"?{query}" if query else "")
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "slowfast", **headers})
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    return request


def _refused(code: int) -> FetchError:
    """Return the error for a status of the server."""
    name = HTTPStatus(code).phrase if code in HTTPStatus.__members__.values() else ""
    start = f"cannot be fetched: the server answered {code} {name}".rstrip()
    if code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return RemoteFileMissing(f"{start}. Check the address")
    if code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return FetchError(f"{start}. Check the user, password or token in the address, and that they may read the file")
    if code in _OVERLOADED:
        return _Overloaded(f"{start}. Try again later")
    return FetchError(f"{start}. Check the address")


def _invalid() -> FetchError:
    return FetchError("cannot be fetched: the address is not valid. Check it")


def _no_connection(error: BaseException, host: str) -> FetchError:
    """Return the error for a request without a response."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return FetchError(f"cannot be fetched: the certificate of {host} is not trusted ({reason.verify_message})")
    if isinstance(reason, TimeoutError):
        return _Overloaded(f"cannot be fetched: {host} did not answer within {TIMEOUT:g} s. Try again later")
    if isinstance(error, ValueError) or isinstance(error, http.client.InvalidURL):
        return _invalid()
    text = system_reason(reason) if isinstance(reason, BaseException) else str(reason)
    kind = "name not known" if isinstance(reason, socket.gaierror) else text
    return Unreachable(
        f"cannot be fetched: no connection to {host} ({kind}). Check the address and the network, or download the file "
        "elsewhere and give its path"
    )
