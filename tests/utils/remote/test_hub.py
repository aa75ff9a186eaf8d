"""Files of Hub repositories, from a server with the Hub's addresses, through huggingface_hub itself."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from slowfast.utils.paths import local_path, path_exists
from slowfast.utils.remote.address import FetchError, RemoteFileMissing, Unreachable
from slowfast.utils.remote.hub import HubFile
from tests.utils.remote import servers
from tests.utils.remote.file_server import COMMIT
from tests.utils.remote.servers import BIG, FileServer, content, files_in, forget, free_port, text_of_all

cache, server = servers.cache, servers.server  # fixtures


@pytest.fixture
def hub(server: FileServer, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub, of the extra hub, is missing")
    # The library reads its environment when it is imported.
    set_endpoint(server.url, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    (server.folder / "lfs").mkdir(exist_ok=True)
    (server.folder / "lfs" / "big.pth").write_bytes(content(BIG))
    (server.folder / "datasets").mkdir(exist_ok=True)
    (server.folder / "datasets" / "train.csv").write_bytes(b"a 0\n")
    return server


def set_endpoint(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("hf://a/b/c.pth", HubFile("a/b", "c.pth", None, "model")),
        ("hf://a/b/c/d.pth@v1", HubFile("a/b", "c/d.pth", "v1", "model")),
        ("hf://a/b@v1/c/d.pth", HubFile("a/b", "c/d.pth", "v1", "model")),
        ("hf://a/b@refs%2Fpr%2F1/d.pth", HubFile("a/b", "d.pth", "refs/pr/1", "model")),
        ("hf://a/b/d.pth@refs/pr/1", HubFile("a/b", "d.pth", "refs/pr/1", "model")),
        ("hf://models/a/b/c.pth", HubFile("a/b", "c.pth", None, "model")),
        ("hf://datasets/a/b/train.csv@v1", HubFile("a/b", "train.csv", "v1", "dataset")),
    ],
)
def test_addresses(address: str, expected: HubFile) -> None:
    assert HubFile.parse(address) == expected


@pytest.mark.parametrize("name", ["a", "a/b", "a/b/", "a/b/c/", "a/b@x/c@y", "a b/c/d"])
def test_addresses_of_no_file(name: str, cache: Path) -> None:
    with pytest.raises(FetchError, match="it names no file of a repository. Write hf://owner/repository/file"):
        local_path(f"hf://{name}")


@pytest.mark.parametrize(
    "address",
    ["hf://me/net/big.pth", "hf://me/net/lfs/big.pth", "hf://me/net/big.pth@v1", f"hf://me/net/big.pth@{COMMIT}"],
)
def test_a_file_is_fetched_once(
    address: str, hub: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "slowfast"):
        path = local_path(Path(address))
        forget(monkeypatch)
        assert local_path(address) == path
    assert path.read_bytes() == content(BIG) and files_in(cache) == [path]
    assert caplog.messages == [f"Downloading {address} (300.0 kB)"]


def test_datasets_and_new_versions(hub: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    file = hub.folder / "datasets" / "val.csv"
    file.write_bytes(b"old 0\n")
    assert local_path("hf://datasets/me/clips/val.csv").read_bytes() == b"old 0\n"
    file.write_bytes(b"new 0\n")
    forget(monkeypatch)
    assert local_path("hf://datasets/me/clips/val.csv").read_bytes() == b"new 0\n"


def test_private_repositories(
    hub: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FetchError, match=r"no model repository me/private. For a private repository set HF_TOKEN"):
        local_path("hf://me/private/lfs/big.pth")
    monkeypatch.setenv("HF_TOKEN", "hf_topsecret")
    path = local_path("hf://me/private/lfs/big.pth")
    assert path.read_bytes() == content(BIG)
    assert "topsecret" not in text_of_all(cache) + "".join(capfd.readouterr())
    away = hub.log("/files/lfs/big.pth?X-Amz-Signature=topsecret")
    assert away and not any("authorization" in map(str.lower, entry["headers"]) for entry in away)


@pytest.mark.parametrize(
    ("address", "kind", "problem"),
    [
        ("hf://me/net/none.pth", RemoteFileMissing, "me/net has no file none.pth"),
        ("hf://me/net/big.pth@v2", RemoteFileMissing, "me/net has no revision v2"),
        ("hf://you/net/big.pth", FetchError, "there is no model repository you/net"),
        ("hf://me/gated/big.pth", FetchError, "access to me/gated must be granted on its page"),
    ],
)
def test_what_the_hub_refuses(address: str, kind: type[FetchError], problem: str, hub: FileServer) -> None:
    with pytest.raises(FetchError) as caught:
        local_path(address)
    assert type(caught.value) is kind and problem in str(caught.value) and "\n" not in str(caught.value)


def test_whether_a_file_exists(hub: FileServer) -> None:
    assert path_exists("hf://datasets/me/clips/train.csv") and not path_exists("hf://me/net/none.csv")


def test_no_hub(
    hub: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = local_path("hf://me/net/big.pth")
    set_endpoint(f"http://127.0.0.1:{free_port()}", monkeypatch)
    forget(monkeypatch)
    with pytest.raises(Unreachable, match="no connection to the Hugging Face Hub. Check the network and HF_ENDPOINT"):
        local_path("hf://me/net/other.pth")
    assert local_path("hf://me/net/big.pth") == path
    assert "Using the copy of" in caplog.text
    set_endpoint(f"{hub.url}/html", monkeypatch)
    with pytest.raises(FetchError, match="the answer is not one of the Hugging Face Hub. Check HF_ENDPOINT"):
        local_path("hf://me/net/other.pth")
    set_endpoint(f"{hub.url}/status/503", monkeypatch)
    with pytest.raises(Unreachable, match="the Hub answered 503"):
        local_path("hf://me/net/other.pth")


def test_without_the_library_the_extra_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FetchError, match=r'hf:// needs huggingface_hub, .*pip install "slowfast\[hub\]"'):
        local_path("hf://me/net/big.pth")


def test_interrupted_downloads_leave_nothing(hub: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(KeyboardInterrupt):
        local_path("hf://me/net/big.pth")
    assert files_in(cache) == []
