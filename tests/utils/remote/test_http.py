"""Files of web servers: fetched once, resumed, revalidated, verified, or rejected with one clear line."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import ssl
import stat
import subprocess
import sys
import threading
from http import server as http_server
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowfast.utils.paths import local_path, path_exists, path_manager, why_not_regular
from slowfast.utils.remote import cache as cache_module
from slowfast.utils.remote import http
from slowfast.utils.remote.address import FetchError, RemoteFileMissing, Unreachable
from tests.conftest import ROOT
from tests.utils.remote import servers
from tests.utils.remote.servers import BIG, FileServer, content, files_in, forget, free_port, run_python, text_of_all

cache, server = servers.cache, servers.server  # fixtures
DIGEST = hashlib.sha256(content(BIG)).hexdigest()


def test_a_file_is_fetched_once_and_kept_privately(server: FileServer, cache: Path) -> None:
    address = f"{server.url}/files/big.pth?once"
    path = local_path(address)
    assert path.read_bytes() == content(BIG) and path.suffix == ".pth"
    assert local_path(Path(address)) == path  # with one slash after "http:"
    assert len(server.log("/files/big.pth?once")) == 1
    assert files_in(cache) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(cache.stat().st_mode) == 0o700
    with path_manager().open(address, "rb") as file:
        assert file.read() == content(BIG)


@pytest.mark.parametrize("behavior", ["files", "dated", "bare", "stubborn"])
def test_the_server_is_asked_again_by_the_next_process(
    behavior: str, server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = server.folder / f"{behavior}.txt"
    file.write_bytes(b"old")
    address = f"{server.url}/{behavior}/{file.name}"
    path = local_path(address)
    first = path.stat().st_mtime_ns
    forget(monkeypatch)
    assert local_path(address) == path and path.stat().st_mtime_ns == first
    assert len(server.log(f"/{behavior}/{file.name}")) == 2
    if behavior == "dated":  # the server says that nothing has changed
        return
    file.write_bytes(b"newer")
    assert local_path(address).read_bytes() == b"old"  # the same throughout a process
    forget(monkeypatch)
    assert local_path(address).read_bytes() == b"newer"


@pytest.mark.parametrize("behavior", ["cut/1", "cut/3", "restart/1", "chunked"])
def test_a_cut_connection_is_resumed_or_restarted(behavior: str, server: FileServer, cache: Path) -> None:
    assert local_path(f"{server.url}/{behavior}/big.pth").read_bytes() == content(BIG)
    ranges = [entry["headers"].get("Range") for entry in server.log(f"/{behavior}/big.pth")]
    assert len(ranges) == (4 if behavior == "cut/3" else 2) and ranges[0] is None
    if behavior.startswith("cut"):
        assert ranges[1] == "bytes=70000-"


def test_a_silent_connection_is_resumed(server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT", 2.0)
    assert local_path(f"{server.url}/stall/big.pth").read_bytes() == content(BIG)
    assert [entry["headers"].get("Range") for entry in server.log("/stall/big.pth")] == [None, "bytes=70000-"]


def test_a_connection_that_is_always_cut(server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreachable, match=rf"cut after 70000 of {BIG} bytes, 5 times in a row. Try again") as caught:
        local_path(f"{server.url}/restart/99/big.pth")
    assert "\n" not in str(caught.value) and files_in(cache) == []
    # Slow is not broken: each connection brings a part.
    (server.folder / "long.pth").write_bytes(content(8 * 70_000))
    assert local_path(f"{server.url}/cut/99/long.pth").read_bytes() == content(8 * 70_000)


@pytest.mark.parametrize(
    ("path", "kind", "problem"),
    [
        ("files/none.pth", RemoteFileMissing, "the server answered 404 Not Found. Check the address"),
        ("status/410/x", RemoteFileMissing, "the server answered 410 Gone"),
        ("status/401/x", FetchError, "401 Unauthorized. Check the user, password or token in the address"),
        ("status/403/x", FetchError, "403 Forbidden"),
        ("status/418/x", FetchError, "418 I'm a Teapot"),
        ("status/503/x", Unreachable, "503 Service Unavailable. Try again later"),
        ("gzip/x.pth", FetchError, "the server compresses it (gzip), although it was asked not to"),
        ("html/x.pth", FetchError, "a web page (text/html) instead of a file"),
        ("disguised/x.pth", FetchError, "a web page (text/html) instead of a file"),
        ("away/html/x.pth", FetchError, "a web page (text/html) instead of a file"),
        ("private/big.pth", FetchError, "401 Unauthorized"),
    ],
)
def test_what_a_server_refuses(
    path: str, kind: type[FetchError], problem: str, server: FileServer, cache: Path
) -> None:
    with pytest.raises(FetchError) as caught:
        local_path(f"{server.url}/{path}")
    assert isinstance(caught.value, kind) and isinstance(caught.value, Unreachable) is (kind is Unreachable)
    assert "cannot be fetched: " in str(caught.value) and problem in str(caught.value)
    assert "\n" not in str(caught.value) and files_in(cache) == []
    assert problem in why_not_regular(f"{server.url}/{path}")


def test_an_overloaded_server_is_asked_again(server: FileServer, cache: Path) -> None:
    assert local_path(f"{server.url}/status/503/2/big.pth").read_bytes() == content(BIG)


def test_no_server(cache: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreachable, match=r"no connection to 127.0.0.1 \(connection refused\). Check the address"):
        local_path(f"http://127.0.0.1:{free_port()}/x.pth")
    with pytest.raises(Unreachable, match=r"no connection to host.invalid \(name not known\)"):
        local_path("https://host.invalid/x.pth")
    monkeypatch.setattr(http, "TIMEOUT", 0.1)
    monkeypatch.setattr(http, "TRIES", 2)
    with pytest.raises(Unreachable, match=r"127.0.0.1 did not answer within 0.1 s"):
        local_path(f"{server.url}/silent/1")
    for address in ("http://host:port/x", "http://[x/y"):
        with pytest.raises(FetchError, match="the address is not valid"):
            local_path(address)


def test_offline_the_copy_in_the_cache_is_used(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = "/files/big.pth?offline"
    path = local_path(server.url + name)
    forget(monkeypatch)
    monkeypatch.setattr(http, "TIMEOUT", 0.1)
    monkeypatch.setattr(
        http, "_send", lambda *_, **__: (_ for _ in ()).throw(Unreachable("cannot be fetched: offline"))
    )
    caplog.clear()
    with caplog.at_level(logging.WARNING, "slowfast"):
        assert local_path(server.url + name) == path
    [warning] = caplog.messages
    assert warning.startswith(f"{server.url}{name} cannot be fetched: offline. Using the copy of 20")


def test_checksums(server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{server.url}/files/big.pth?sum"
    for wrong in ("0" * 63, "x" * 64, ""):
        with pytest.raises(FetchError, match="#sha256= must be followed by 64 hexadecimal digits"):
            local_path(f"{address}#sha256={wrong}")
    with pytest.raises(FetchError, match=rf"its SHA-256 is {DIGEST}, not {'0' * 64} as in the address"):
        local_path(f"{address}#sha256={'0' * 64}")
    assert files_in(cache) == []
    path = local_path(f"{address}#sha256={DIGEST.upper()}")
    assert path.read_bytes() == content(BIG)
    requests = len(server.log("/files/big.pth?sum"))
    forget(monkeypatch)
    assert local_path(f"{address}#sha256={DIGEST}") == path
    assert len(server.log("/files/big.pth?sum")) == requests  # a file with the right checksum needs no server
    path.write_bytes(content(BIG, seed=1))  # damaged in the cache, of the same size
    forget(monkeypatch)
    assert local_path(f"{address}#sha256={DIGEST}").read_bytes() == content(BIG)
    path.write_bytes(b"truncated")
    forget(monkeypatch)
    assert local_path(address).read_bytes() == content(BIG)  # without a checksum the size is compared


def test_files_that_others_can_change_are_fetched_again(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address = f"{server.url}/files/big.pth?others"
    path = local_path(address)
    path.chmod(0o666)
    forget(monkeypatch)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "slowfast"):
        again = local_path(address)
    assert again != path and again.read_bytes() == content(BIG)
    assert "is writable by other users" in caplog.messages[0]


def test_secrets_are_sent_and_shown_nowhere(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port = server.url.rpartition(":")[2]
    with caplog.at_level(logging.DEBUG):
        path = local_path(f"http://me:s3%3Acr%2Fet@127.0.0.1:{port}/here/private/big.pth?token=top1secret&x=1")
        forget(monkeypatch)
        # A new signature: the same file.
        assert path == local_path(f"http://me:s3%3Acr%2Fet@127.0.0.1:{port}/here/private/big.pth?token=top2secret&x=1")
        with pytest.raises(FetchError) as caught:
            local_path(f"http://me:top3secret@127.0.0.1:{port}/private/big.pth?X-Amz-Signature=top4secret")
        local_path(f"http://me:top5secret@127.0.0.1:{port}/away/files/big.pth")
    assert path.read_bytes() == content(BIG)
    shown = text_of_all(cache) + caplog.text + str(caught.value)
    assert "secret" not in shown and "s3%3A" not in shown and "s3:cr" not in shown
    [sent] = server.log("/away/files/big.pth")
    assert "Authorization" in sent["headers"]
    assert not any("Authorization" in entry["headers"] for entry in server.log("/files/big.pth"))


@given(st.text("0123456789abcdef", min_size=12, max_size=64), st.sampled_from([0, 1, 2]))
def test_names_in_the_cache_do_not_depend_on_secrets(secret: str, place: int) -> None:
    forms = (
        "https://me:{}@host/a/b.pth?v=1",
        "https://host/a/b.pth?token={}&v=1",
        "https://host/a/b.pth?v=1&X-Amz-Date={}",
    )
    name = cache_module.cache_name(forms[place].format(secret))
    assert name == cache_module.cache_name(forms[place].format("other")) and secret not in name
    assert name.endswith("-b.pth") and name != cache_module.cache_name(
        forms[place].format(secret).replace("v=1", "v=2")
    )


def test_a_secret_that_a_saved_config_hides_is_asked_for(cache: Path) -> None:
    with pytest.raises(FetchError, match=r"a password or token in it is hidden \(\*\*\*\). Give the whole address"):
        local_path("https://***@host.invalid/x.pth")


def test_from_https_to_http_is_not_followed() -> None:
    request = http.urllib.request.Request("https://host/x")
    with pytest.raises(FetchError, match="host redirects from https to http"):
        http._Redirects().redirect_request(request, None, 302, "", None, "http://host/x")  # type: ignore[arg-type]


def test_a_certificate_that_is_not_trusted(cache: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, so no certificate can be made")
    names = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate"), "-subj", "/CN=localhost"]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", *names]
    subprocess.run(make, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    with http_server.HTTPServer(("127.0.0.1", 0), http_server.BaseHTTPRequestHandler) as one:
        one.socket = context.wrap_socket(one.socket, server_side=True)
        thread = threading.Thread(target=one.handle_request)
        thread.start()
        with pytest.raises(FetchError, match=r"certificate of localhost is not trusted \(self-signed certificate\)"):
            local_path(f"https://localhost:{one.server_address[1]}/x.pth")
        thread.join()


def test_a_full_disk(server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{server.url}/files/big.pth?full"
    usage = cache_module.shutil.disk_usage("/")._replace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(cache_module.shutil, "disk_usage", lambda folder: usage)
        with pytest.raises(FetchError, match=r"it needs 300.0 kB, but only 1.0 kB are free for the cache .*XDG_CACHE"):
            local_path(address)
    # A file-size limit, such as a quota, is reached while writing.
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from slowfast.utils.paths import why_not_regular; print(why_not_regular(sys.argv[1]))"
    )
    done = run_python(code, address)
    assert "cannot be fetched: cannot write" in done.stdout and "does not take a file of this size" in done.stdout
    assert files_in(cache) == []


def test_processes_at_once_download_once(server: FileServer, cache: Path) -> None:
    code = "import sys; from slowfast.utils.paths import local_path; print(local_path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", code, f"{server.url}/files/big.pth?both"]
    runs = [subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    paths = {run.communicate(timeout=180)[0] for run in runs}
    assert len(paths) == 1 and Path(paths.pop().strip()).read_bytes() == content(BIG)
    requests = server.log("/files/big.pth?both")
    assert sum("If-None-Match" not in entry["headers"] for entry in requests) == 1
    assert len(files_in(cache)) == 1


def test_progress_is_logged(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache_module, "_SHOW_FROM", 1)
    (server.folder / "five.bin").write_bytes(content(5 * 2**20))
    with caplog.at_level(logging.INFO, "slowfast"):
        local_path(f"{server.url}/files/five.bin")
    first, *lines = caplog.messages
    assert first == f"Downloading {server.url}/files/five.bin (5.2 MB)"
    assert [line.split("  ")[0] for line in lines] == [f"five.bin {number}/5 MiB" for number in range(1, 6)]


def test_whether_a_file_exists(server: FileServer, cache: Path, tmp_path: Path) -> None:
    assert path_exists(f"{server.url}/files/small.csv") and not path_exists(f"{server.url}/files/none.csv")
    assert path_exists(tmp_path) and not path_exists(tmp_path / "none")
    assert not path_manager().exists(f"{server.url}/files/none.csv")
    with pytest.raises(FetchError):
        path_exists(f"{server.url}/status/403/x")
