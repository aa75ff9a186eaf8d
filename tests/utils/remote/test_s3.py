"""Objects of an S3 server (moto): fetched once, revalidated, verified, or rejected with one clear line."""

from __future__ import annotations

import hashlib
import importlib
import logging
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slowfast.cli.main import main
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import eval_dataset
from slowfast.errors import IndexFileError
from slowfast.utils.paths import local_path, path_exists
from slowfast.utils.remote import cache as cache_module
from slowfast.utils.remote import s3
from slowfast.utils.remote.address import FetchError, RemoteFileMissing, Unreachable
from slowfast.utils.remote.s3 import SampleCache
from tests.datasets.test_packed_samples import Collection
from tests.datasets.test_packed_samples import same_batches as same_packed
from tests.datasets.test_shards import same_batches, use
from tests.utils.remote import servers
from tests.utils.remote.servers import BIG, content, files_in, forget, free_port, text_of_all

cache, s3_server = servers.cache, servers.s3_server  # fixtures
KEY, SECRET = "AKIDTOPSECRET", "wJalrTOPSECRET"


@pytest.fixture(scope="module")
def client(s3_server: str) -> Iterator[Any]:
    boto3 = pytest.importorskip("boto3", reason="boto3, of the extra s3, is not installed")
    names = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=s3_server, **names)
    client.create_bucket(Bucket="weights")
    client.put_object(Bucket="weights", Key="a b/big.pth", Body=content(BIG))
    yield client


@pytest.fixture
def bucket(client: Any, s3_server: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The server and credentials as AWS's tools find them, and no others."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return client


def test_an_object_is_fetched_once(
    bucket: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "slowfast"):
        path = local_path(Path("s3://weights/a b/big.pth"))
        forget(monkeypatch)
        assert local_path("s3://weights/a b/big.pth") == path
    assert path.read_bytes() == content(BIG) and files_in(cache) == [path]
    assert caplog.messages == ["Downloading s3://weights/a b/big.pth (300.0 kB)"]
    assert "TOPSECRET" not in text_of_all(cache) + caplog.text


def test_a_new_version_is_fetched(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put_object(Bucket="weights", Key="index/train.csv", Body=b"a 0\n")
    assert local_path("s3://weights/index/train.csv").read_bytes() == b"a 0\n"
    bucket.put_object(Bucket="weights", Key="index/train.csv", Body=b"b 1\n")
    forget(monkeypatch)
    assert local_path("s3://weights/index/train.csv").read_bytes() == b"b 1\n"


def test_large_objects_come_in_parts_with_progress(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache_module, "_SHOW_FROM", 1)
    body = content(2**20) * 20
    bucket.put_object(Bucket="weights", Key="large.pth", Body=body)
    with caplog.at_level(logging.INFO, "slowfast"):
        assert local_path("s3://weights/large.pth").read_bytes() == body
    assert caplog.messages[-1].startswith("large.pth 20/20 MiB")


def test_checksums(bucket: Any) -> None:
    digest = hashlib.sha256(content(BIG)).hexdigest()
    assert local_path(f"s3://weights/a b/big.pth#sha256={digest}").read_bytes() == content(BIG)
    with pytest.raises(FetchError, match=f"its SHA-256 is {digest}, not "):
        local_path(f"s3://weights/a b/big.pth#sha256={'0' * 64}")


@pytest.mark.parametrize("address", ["s3://weights/none.pth", "s3://no-such-bucket/big.pth"])
def test_missing_objects(address: str, bucket: Any) -> None:
    with pytest.raises(RemoteFileMissing, match=r"bucket \S+ or the file in it does not exist"):
        local_path(address)
    assert not path_exists(address)


@pytest.mark.parametrize("address", ["s3://weights", "s3://weights/", "s3://weights/folder/"])
def test_addresses_of_no_file(address: str, bucket: Any) -> None:
    with pytest.raises(FetchError, match="it names no file. Write s3://bucket/key"):
        local_path(address)


def test_no_access(bucket: Any, s3_server: str) -> None:
    allow_without_permission(s3_server, "0")
    try:
        with pytest.raises(FetchError, match=r"refuses access to bucket weights \(403\). Check the credentials"):
            local_path("s3://weights/a b/big.pth")
    finally:
        allow_without_permission(s3_server, "inf")


def allow_without_permission(server: str, requests: str) -> None:
    """Set the number of requests that moto lets pass before it checks credentials."""
    headers = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{server}/moto-api/reset-auth", requests.encode(), headers)
    urllib.request.urlopen(request).close()


def test_an_overloaded_server() -> None:
    error = importlib.import_module("botocore.exceptions").ClientError
    answer = {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}
    problem = s3._explained(error(answer, "HeadObject"), "weights")
    assert isinstance(problem, Unreachable) and "the server answered 503 SlowDown. Try again later" in str(problem)


def test_bad_credentials(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(FetchError, match="the credentials are incomplete"):
        local_path("s3://weights/a b/big.pth")
    monkeypatch.setenv("AWS_PROFILE", "none")
    with pytest.raises(FetchError, match=r"The config profile \(none\) could not be found"):
        local_path("s3://weights/a b/big.pth")


def test_public_buckets_need_no_credentials(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put_object(Bucket="weights", Key="public", Body=b"all", ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert local_path("s3://weights/public").read_bytes() == b"all"


def test_no_server(bucket: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    path = local_path("s3://weights/a b/big.pth")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unreachable, match="no connection to 127.0.0.1. Check the network and AWS_ENDPOINT_URL"):
        local_path("s3://weights/other.pth")
    forget(monkeypatch)
    assert local_path("s3://weights/a b/big.pth") == path
    assert "Using the copy of" in caplog.text


def test_without_boto3_the_extra_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(FetchError, match=r's3:// needs boto3, .*pip install "slowfast\[s3\]"'):
        local_path("s3://weights/big.pth")


@pytest.fixture(scope="module")
def uploaded(client: Any, kinetics_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small folder, whose clips are in a bucket as single objects and as shards."""
    target = tmp_path_factory.mktemp("shards")
    index = [str(kinetics_folder / f"{split}.csv") for split in ("train", "val", "test")]
    assert main(["shards", str(kinetics_folder), "--out", str(target), "--index", *index, "--size", "1"]) == 0
    client.create_bucket(Bucket="media")
    for folder, key in ((kinetics_folder, "files"), (target, "shards")):
        for path in folder.rglob("*.*"):
            client.put_object(Bucket="media", Key=f"{key}/{path.relative_to(folder)}", Body=path.read_bytes())
    return kinetics_folder


@pytest.fixture
def media(bucket: Any, uploaded: Path) -> Path:
    return uploaded


@pytest.mark.parametrize("key", ["files", "shards"])
def test_samples_are_read_from_s3(media: Path, tiny_cfg: ConfigNode, cache: Path, key: str) -> None:
    tiny_cfg.DATA_LOADER.NUM_WORKERS = 2
    same_batches(tiny_cfg, media, f"s3://media/{key}")
    kept = {path: path.stat().st_ino for path in (cache.parent / "media").iterdir()}
    assert len(kept) == 24  # of train and test
    same_batches(tiny_cfg, media, f"s3://media/{key}/")
    assert {path: path.stat().st_ino for path in (cache.parent / "media").iterdir()} == kept


@pytest.mark.parametrize("kind", ["frames", "events"])
def test_folders_and_recordings_are_read_from_shards_in_s3(
    bucket: Any, client: Any, cache: Path, tmp_path: Path, kind: str
) -> None:
    collection = Collection(kind, tmp_path)
    client.create_bucket(Bucket=kind)
    for path in collection.shards.iterdir():
        client.put_object(Bucket=kind, Key=f"train/{path.name}", Body=path.read_bytes())
    same_packed(collection.cfg(collection.files), collection.cfg(collection.shards, f"s3://{kind}/train"))


def test_the_cache_of_samples_has_a_limit(cache: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(s3, "_KEPT_SECONDS", 0.0)
    store = SampleCache(100_000)
    sizes = []
    for number in range(40):
        store.get(f"s3://media/{number}.bin", lambda part: part.write_bytes(bytes(10_000)) and None)
        store.get("s3://media/0.bin", lambda part: pytest.fail("the file in use was deleted"))
        sizes.append(sum(file.stat().st_size for file in (cache.parent / "media").iterdir()))
    assert 80_000 <= max(sizes[10:]) <= 100_000 + 10_000


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("s3://nobody/files", "none of the first 3 files exist"),
        ("s3://media/other", "none of the first 3 files exist"),
        ("s3://key@media/files", "credentials do not belong in an s3:// address"),
        ("https://host/files", "samples are read from folders and s3:// addresses only"),
    ],
)
def test_samples_that_are_not_there(media: Path, tiny_cfg: ConfigNode, prefix: str, message: str) -> None:
    tiny_cfg.DATA.PATH_PREFIX = prefix
    with pytest.raises(IndexFileError, match=message):
        eval_dataset(tiny_cfg, "test")


def test_a_sample_that_cannot_be_fetched_is_a_failure(media: Path, bucket: Any, tiny_cfg: ConfigNode) -> None:
    dataset = eval_dataset(use(tiny_cfg, "s3://media/files"), "test")
    bucket.delete_object(Bucket="media", Key=f"files/{dataset.records[1].name}")
    good, lost = dataset[0], dataset[1]
    assert good.frames is not None and lost.frames is None
    assert lost.failures[0].reason == "cannot be fetched: bucket media or the file in it does not exist"
