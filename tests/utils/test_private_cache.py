"""Private cache: only files that no other user can change are used."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slowfast.utils import private_cache as module
from slowfast.utils.logging import warn_once
from slowfast.utils.private_cache import private_cache

NAME = "kernels-1.so"
OTHER_USER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """As in a new process: no temporary folder yet, no warning issued."""
    # Processes of pytest-xdist delete nothing when they exit.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
    warn_once.cache_clear()
    module._temporary_folder.cache_clear()
    yield
    module._temporary_folder.cache_clear()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "slowfast"


def filled(cache: Path) -> Path:
    """A cache with a file in it, both private."""
    cache.mkdir(parents=True, mode=0o700)
    cache.parent.chmod(0o700)
    file = cache / NAME
    file.write_text("library")
    file.chmod(0o700)
    return file


def refused(file: Path, caplog: pytest.LogCaptureFixture) -> str:
    """Check that another, private folder is used, and return the one warning."""
    with caplog.at_level(logging.WARNING, "slowfast"):
        first, second = private_cache(NAME), private_cache(NAME)
    assert first == second and first.name == NAME
    assert Path(os.path.realpath(file.parent)) not in first.resolve().parents
    assert not first.exists()
    assert stat.S_IMODE(first.parent.stat().st_mode) == 0o700 and first.parent.stat().st_uid == os.geteuid()
    first.write_text("can be written")
    (record,) = caplog.records
    return record.getMessage()


def test_a_private_cache_is_used_silently(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = filled(cache)
    assert private_cache(NAME) == file
    assert private_cache("another") == cache / "another"
    assert not caplog.records


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_missing_folders_are_created_for_this_user_alone(cache: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        assert private_cache(NAME) == cache / NAME
    finally:
        os.umask(before)
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (cache, cache.parent)] == [0o700, 0o700]


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777, 0o720, 0o702])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_others_can_write_to_is_not_used(
    cache: Path, what: str, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    file = filled(cache)
    (file if what == "file" else cache).chmod(mode)
    assert "is writable by other users" in refused(file, caplog)


@pytest.mark.parametrize("mode", [0o755, 0o711, 0o500, 0o550])
def test_what_others_can_only_read_is_used(cache: Path, mode: int) -> None:
    file = filled(cache)
    cache.chmod(mode)
    file.chmod(mode)
    assert private_cache(NAME) == file


def test_a_folder_above_that_others_can_write_to_lets_them_replace_the_cache(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = filled(cache)
    cache.parent.chmod(0o777)
    assert str(cache.parent) in refused(file, caplog)


def test_in_a_sticky_folder_nobody_can_replace_it(cache: Path) -> None:
    file = filled(cache)
    cache.parent.chmod(0o1777)
    assert private_cache(NAME) == file


@pytest.mark.parametrize("own", [True, False])
def test_a_folder_above_may_be_writable_for_a_private_group(
    cache: Path, own: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = filled(cache)
    cache.parent.chmod(0o775)
    monkeypatch.setattr(module, "_is_private_group", lambda gid: own and gid == cache.parent.stat().st_gid)
    if own:
        assert private_cache(NAME) == file
    else:
        assert "is writable by other users (mode 775)" in refused(file, caplog)


@as_root
@pytest.mark.parametrize("what", ["file", "folder", "above"])
def test_what_another_user_owns_is_not_used(cache: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    file = filled(cache)
    os.chown({"file": file, "folder": cache, "above": cache.parent}[what], OTHER_USER, OTHER_USER)
    assert f"belongs to another user (uid {OTHER_USER})" in refused(file, caplog)


@as_root
@pytest.mark.parametrize("what, used", [("file", False), ("folder", False), ("above", True)])
def test_in_a_rootless_container_roots_folders_above_seem_another_users(
    cache: Path, what: str, used: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = filled(cache)
    os.chown({"file": file, "folder": cache, "above": cache.parent}[what], 65534, 65534)
    monkeypatch.setattr(module, "_unmapped_root", lambda: 65534)
    if used:
        assert private_cache(NAME) == file
    else:
        assert "belongs to another user (uid 65534)" in refused(file, caplog)


@as_root
def test_a_link_to_what_another_user_owns_is_not_used(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    planted = filled(tmp_path / "theirs")
    os.chown(planted, OTHER_USER, OTHER_USER)
    cache.mkdir(parents=True, mode=0o700)
    (cache / NAME).symlink_to(planted)
    assert str(planted) in refused(planted, caplog)


@pytest.mark.parametrize("link", ["file", "folder", "above"])
def test_a_link_does_not_hide_what_others_can_write_to(
    cache: Path, tmp_path: Path, link: str, caplog: pytest.LogCaptureFixture
) -> None:
    planted = filled(tmp_path / "shared" / "slowfast")
    (tmp_path / "shared").chmod(0o777)
    if link == "above":
        cache.parent.symlink_to(tmp_path / "shared")
    elif link == "folder":
        cache.parent.mkdir(mode=0o700)
        cache.symlink_to(planted.parent)
    else:
        cache.mkdir(parents=True, mode=0o700)
        (cache / NAME).symlink_to(planted)
    assert "is writable by other users" in refused(planted, caplog)


def test_a_link_is_followed_once_so_that_it_cannot_be_redirected_later(cache: Path, tmp_path: Path) -> None:
    file = filled(tmp_path / "mine" / "slowfast")
    cache.parent.symlink_to(tmp_path / "mine")
    assert private_cache(NAME) == file
    assert private_cache("new") == file.with_name("new")


def loop(cache: Path) -> None:
    cache.parent.mkdir()
    cache.symlink_to(cache)


def dangling(cache: Path) -> None:
    cache.parent.mkdir()
    cache.symlink_to(cache.with_name("nowhere"))


def a_file(cache: Path) -> None:
    cache.parent.write_text("no folder")


@pytest.mark.parametrize("make", [loop, dangling, a_file])
def test_a_cache_that_is_no_folder_is_not_used(
    cache: Path, make: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    make(cache)
    assert str(cache.parent) in refused(cache / NAME, caplog)


def test_a_read_only_cache_is_used_for_what_is_there(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = filled(cache)
    # Root can write where the mode forbids it, but not on a read-only file system.
    monkeypatch.setattr(os, "access", lambda path, mode: not (Path(path) == cache and mode & os.W_OK))
    assert private_cache(NAME) == file
    file.unlink()
    assert f"{cache} is not writable" in refused(file, caplog)


def where(**environment: str | None) -> subprocess.CompletedProcess[str]:
    """What a new process finds with these variables, None for unset ones."""
    code = "from slowfast.utils.private_cache import private_cache as p; print(p('x')); p('x').write_text('x')"
    given = {key: value for key, value in {**os.environ, **environment}.items() if value is not None}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=given, timeout=180)


@pytest.mark.parametrize("relative", ["", "relative/folder"])
def test_home_is_the_default(tmp_path: Path, relative: str) -> None:
    done = where(HOME=str(tmp_path), XDG_CACHE_HOME=relative)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}/.cache/slowfast/x\n", "")


def test_a_temporary_folder_is_gone_after_the_process(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("no folder")
    done = where(HOME=str(home), XDG_CACHE_HOME=None, TMPDIR=str(tmp_path))
    assert done.returncode == 0 and done.stderr.count("\n") == 1 and str(home) in done.stderr
    assert done.stdout.startswith(f"{tmp_path}/slowfast-") and sorted(tmp_path.iterdir()) == [home]


def test_without_home_the_users_own_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", str(tmp_path)))
    assert private_cache(NAME) == tmp_path / ".cache" / "slowfast" / NAME


def test_a_user_without_any_home_gets_a_temporary_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does for an unknown user
    assert "HOME is not set" in refused(tmp_path / NAME, caplog)


def test_one_of_several_processes_measures(cache: Path, tmp_path: Path) -> None:
    """The others wait for it and use its value."""
    calls = tmp_path / "calls"
    code = (
        "import os, sys, time; from slowfast.utils.private_cache import cached_json\n"
        "def measure():\n"
        f"    with open({str(calls)!r}, 'a') as file: file.write('x')\n"
        "    time.sleep(1)\n"
        "    return os.getpid()\n"
        "print(cached_json('value.json', 'a value', lambda content: content, measure))"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache.parent), "PYTHONPATH": os.pathsep.join(sys.path)}
    line = [sys.executable, "-c", code]
    processes = [subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = [process.communicate(timeout=120)[0] for process in processes]
    assert calls.read_text() == "x" and len(set(found)) == 1 and int(found[0]) in [one.pid for one in processes]
