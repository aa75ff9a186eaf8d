"""Servers on loopback ports, each a process ended by its ID, and an empty cache."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from slowfast.utils.logging import warn_once
from slowfast.utils.remote import cache as cache_module
from slowfast.utils.remote import http, s3
from tests.conftest import ROOT

HERE = Path(__file__).parent
BIG = 300_000  # bytes


@dataclass(frozen=True)
class FileServer:
    """Running web server.

    Attributes:
        url: Address without a final slash.
        folder: Folder of its files.
    """

    url: str
    folder: Path

    def log(self, path: str) -> list[dict[str, Any]]:
        """Return the requests for a path so far."""
        with urllib.request.urlopen(f"{self.url}/log") as response:
            return [entry for entry in json.load(response) if entry["path"] == path]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "big.pth").write_bytes(content(BIG))
    (folder / "small.csv").write_bytes(b"a.mp4 0\n")
    command = [sys.executable, str(HERE / "file_server.py"), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield FileServer(f"http://127.0.0.1:{process.stdout.readline().strip()}", folder)
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("moto", reason="moto, of the extra dev, is not installed, so no S3 server can be started")
    port = free_port()
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("w") as out:
        command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(url).close()
            break
        except urllib.error.HTTPError:
            break
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
    yield url
    process.kill()
    process.wait()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty cache, as in a process that has fetched nothing; no waiting between tries."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    # Matplotlib would search all fonts again in another cache.
    monkeypatch.setenv("MPLCONFIGDIR", os.path.expanduser("~/.cache/matplotlib"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(http, "PAUSE", 0.01)
    monkeypatch.setattr(s3, "TRIES", 1)
    forget(monkeypatch)
    return tmp_path / "xdg" / "slowfast" / "downloads"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process has fetched, as a new process does."""
    monkeypatch.setattr(cache_module, "_current", {})
    warn_once.cache_clear()


def content(size: int, seed: int = 0) -> bytes:
    """Return bytes without a repeating pattern."""
    blocks = (hashlib.sha256(f"{seed} {number}".encode()).digest() for number in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in another process, which has the environment of this one."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", code, *arguments]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def files_in(folder: Path) -> list[Path]:
    """Return the downloaded files, without descriptions and locks; also unfinished ones."""
    return [path for path in folder.iterdir() if not path.name.endswith((".json", ".lock"))] if folder.is_dir() else []


def text_of_all(folder: Path) -> str:
    """Return names and contents of all files in a folder and below."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            found += [name, Path(place, name).read_bytes().decode(errors="replace")]
    return "\n".join(found)
