"""Web server that imitates good and bad real servers, and the Hugging Face Hub's addresses.

`python file_server.py FOLDER` serves the files of a folder on a free port, which it prints. The first part of an
address says how; see BEHAVIORS. `/log` returns the requests so far as JSON.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import sys
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PAGE = b"<!DOCTYPE html>\n<html><body>Please log in</body></html>\n"
FOLDER = Path()
LOG: list[dict[str, object]] = []
SEEN: Counter[str] = Counter()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        first, _, rest = unquote(parts.path).lstrip("/").partition("/")
        if first == "log":
            return self.answer(200, json.dumps(LOG).encode())
        LOG.append({"path": self.path, "method": self.command, "headers": dict(self.headers.items())})
        SEEN[self.path] += 1
        behavior = BEHAVIORS.get(first)
        return behavior(self, rest) if behavior else self.hub(unquote(parts.path).lstrip("/"))

    do_HEAD = do_GET

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def body(self, name: str) -> bytes | None:
        file = FOLDER / name
        if file.is_file():
            return file.read_bytes()
        self.answer(404, PAGE, Content_Type="text/html")
        return None

    def files(self, name: str, upto: int | None = None, ranges: bool = True) -> None:
        """Send a file with an ETag, only if it has changed, from the requested byte on; cut it after `upto` bytes."""
        body = self.body(name)
        if body is None:
            return
        etag, status, headers = f'"{hashlib.md5(body).hexdigest()}"', 200, {}
        if self.headers.get("If-None-Match") == etag:
            return self.answer(304, ETag=etag)
        asked = self.headers.get("Range")
        if asked and ranges and self.headers.get("If-Range") in (None, etag):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body, status = body[start:], 206
        length = len(body)
        if upto is not None:
            body = body[:upto]
            self.close_connection = True
        self.answer(status, body, ETag=etag, Content_Length=str(length), Content_Type="application/x-thing", **headers)

    def cut(self, rest: str, ranges: bool = True) -> None:
        """Cut the first N responses: N/name."""
        times, _, name = rest.partition("/")
        self.files(name, 70_000 if SEEN[self.path] <= int(times) else None, ranges)

    def stall(self, name: str) -> None:
        """Fall silent in the middle the first time."""
        self.cut(f"1/{name}")
        if SEEN[self.path] == 1:
            self.wfile.flush()
            time.sleep(1)

    def restart(self, rest: str) -> None:
        self.cut(rest, ranges=False)

    def chunked(self, name: str) -> None:
        """Send no length, and close the connection in the middle the first time."""
        body = self.body(name) or b""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        half = len(body) // 2
        self.wfile.write(b"%x\r\n%s\r\n" % (half, body[:half]))
        if SEEN[self.path] > 1:
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body) - half, body[half:]))
        self.close_connection = True

    def dated(self, name: str) -> None:
        """Send a date and no ETag."""
        date = self.headers.get("If-Modified-Since")
        wanted = "Thu, 01 Jan 2026 00:00:00 GMT"
        body = self.body(name)
        if body is not None:
            self.answer(304) if date == wanted else self.answer(200, body, Last_Modified=wanted)

    def bare(self, name: str) -> None:
        body = self.body(name)
        if body is not None:
            self.answer(200, body)

    def gzip(self, name: str) -> None:
        """Compress although it was asked not to."""
        self.answer(200, gzip.compress(b"content"), Content_Encoding="gzip")

    def stubborn(self, name: str) -> None:
        """Send an ETag and ignore conditions."""
        body = self.body(name)
        if body is not None:
            self.answer(200, body, ETag=f'"{hashlib.md5(body).hexdigest()}"')

    def html(self, name: str) -> None:
        self.answer(200, PAGE, Content_Type="text/html; charset=utf-8")

    def disguised(self, name: str) -> None:
        self.answer(200, PAGE, Content_Type="application/octet-stream")

    def status(self, rest: str) -> None:
        """Answer with a status: CODE/name; CODE/N/name the first N times."""
        code, _, rest = rest.partition("/")
        times, _, name = rest.partition("/")
        if times.isdecimal() and SEEN[self.path] > int(times):
            return self.files(name)
        return self.answer(int(code), PAGE, Content_Type="text/html")

    def silent(self, name: str) -> None:
        time.sleep(float(name))
        self.close_connection = True

    def private(self, name: str) -> None:
        """Require the user "me" with the password "s3:cr/et"."""
        wanted = f"Basic {base64.b64encode(b'me:s3:cr/et').decode()}"
        if self.headers.get("Authorization") != wanted:
            return self.answer(401, PAGE, WWW_Authenticate='Basic realm="x"')
        return self.files(name)

    def away(self, rest: str) -> None:
        """Redirect to another name of this server (localhost), with the rest as the path."""
        self.answer(302, Location=f"http://localhost:{self.server.server_address[1]}/{rest}")

    def here(self, rest: str) -> None:
        self.answer(302, Location=f"/{rest}")

    def hub(self, path: str) -> None:
        """Answer as the Hub: owner/name/resolve/revision/file, below datasets/ for data; lfs/ is redirected."""
        kind = "datasets/" if path.startswith("datasets/") else ""
        owner, _, rest = path.removeprefix("datasets/").partition("/")
        repo, _, rest = rest.partition("/resolve/")
        revision, _, name = rest.partition("/")
        token = self.headers.get("Authorization")
        if repo == "gated":
            return self.answer(403, X_Error_Code="GatedRepo")
        if owner != "me" or (repo == "private" and token != "Bearer hf_topsecret"):
            return self.answer(401, X_Error_Code="RepoNotFound")
        if revision not in ("main", "v1", COMMIT):
            return self.answer(404, X_Error_Code="RevisionNotFound")
        file = FOLDER / kind / name
        if not file.is_file():
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        body = file.read_bytes()
        digest = hashlib.sha256(body).hexdigest()
        if name.startswith("lfs/"):
            place = f"http://localhost:{self.server.server_address[1]}/files/{kind}{name}?X-Amz-Signature=topsecret"
            linked = {"X_Linked_Size": str(len(body)), "X_Linked_Etag": f'"{digest}"'}
            return self.answer(302, Location=place, X_Repo_Commit=COMMIT, ETag='"x"', **linked)
        return self.answer(200, body, ETag=f'"{digest}"', X_Repo_Commit=COMMIT)


NAMES = "files cut stall restart chunked dated bare gzip stubborn html disguised status silent private away here"
BEHAVIORS = {name: getattr(Handler, name) for name in NAMES.split()}

if __name__ == "__main__":
    FOLDER = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
