"""Objects of a real S3 server, moto's: fetched once, revalidated, verified, and refused with one line."""

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

from slowfast.utils.paths import local_path, path_exists
from slowfast.utils.remote import cache as cache_module
from slowfast.utils.remote import s3
from slowfast.utils.remote.address import FetchError, RemoteFileMissing, Unreachable
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
