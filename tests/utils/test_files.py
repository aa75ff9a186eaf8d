"""Atomic writing of files and folders, and clean-up of unfinished ones."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from slowfast.errors import DiskError, UserError
from slowfast.utils.files import (
    atomic_path,
    atomic_write_text,
    disk_error,
    part_owner,
    remove_leftovers,
    reporting_file,
)


@pytest.fixture
def file_limit() -> Iterator[Callable[[int], None]]:
    """Limit the size of files, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_files_and_folders_appear_whole(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a" / "x.txt") as part:
        part.write_text("whole")
        assert not (tmp_path / "a" / "x.txt").exists()
    with atomic_path(tmp_path / "a" / "folder", ".frames") as part:
        part.mkdir()
        (part / "1.jpg").touch()
    assert (tmp_path / "a" / "x.txt").read_text() == "whole"
    assert sorted(path.name for path in (tmp_path / "a").rglob("*")) == ["1.jpg", "folder", "x.txt"]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("old")
    for name, is_folder in (("x.txt", False), ("folder", True)):
        with pytest.raises(KeyError), atomic_path(tmp_path / name) as part:
            part.mkdir() if is_folder else part.write_text("half")
            raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"] and (tmp_path / "x.txt").read_text() == "old"


def test_a_folder_finished_meanwhile_is_kept(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "folder") as part:
        part.mkdir()
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "1.jpg").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["1.jpg", "folder"]


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    atomic_write_text(path, "old")
    with pytest.raises(TypeError):
        atomic_write_text(path, 3)  # type: ignore[arg-type]
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_writers_find_the_suffix_they_look_at(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "graph.pt2", suffix=".pt2") as part:
        assert part.suffix == ".pt2" and part.name.startswith(".graph.pt2.")
        part.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["graph.pt2"]


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda part: part.write_text("x" * 9000),
    "npz": lambda part: np.savez(part.open("wb"), x=np.zeros(9000)),
    "nested error": lambda part: _failing(part),
}


def _failing(part: Path) -> None:
    with reporting_file(part) as file:
        try:
            file.write(bytes(9000))
            file.flush()
        except OSError:
            raise RuntimeError("unexpected pos 64 vs 0") from None  # as PyTorch's zip writer has it


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_user_error_and_leaves_nothing(
    name: str, tmp_path: Path, file_limit: Callable[[int], None]
) -> None:
    file_limit(4096)
    place = tmp_path / "file"
    place.write_text("old")
    with pytest.raises(DiskError, match=f"Cannot write {place}: the disk of OUTPUT_DIR {tmp_path} ") as caught:
        with atomic_path(place, setting="OUTPUT_DIR") as part:
            WRITERS[name](part)
    assert isinstance(caught.value, UserError) and caught.value.errno == errno.EFBIG
    assert place.read_text() == "old" and list(tmp_path.iterdir()) == [place]
    copy = pickle.loads(pickle.dumps(caught.value))  # it is sent between processes
    assert str(copy) == str(caught.value) and copy.errno == errno.EFBIG


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EFBIG", "EROFS"])
def test_what_is_wrong_with_the_disk_is_said(name: str, tmp_path: Path) -> None:
    number = getattr(errno, name)
    words = {"ENOSPC": "is full. Free", "EDQUOT": "quota", "EFBIG": "ulimit", "EROFS": "is read-only"}[name]
    for error in (OSError(number, os.strerror(number)), av.error.OSError(number, os.strerror(number))):
        found = disk_error(error, tmp_path / "a")
        assert found is not None and words in str(found) and str(tmp_path) in str(found)
    assert disk_error(OSError(errno.EIO, "io"), tmp_path) is None and disk_error(ValueError(), tmp_path) is None


def test_a_source_without_access_is_not_the_disk_s_fault(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), atomic_path(tmp_path / "a" / "target"):
        raise PermissionError(errno.EACCES, "no", "/elsewhere/source.mp4")
    with pytest.raises(DiskError, match="no permission to write to"), atomic_path(tmp_path / "a" / "target") as part:
        raise PermissionError(errno.EACCES, "no", str(part))


def test_a_large_tensor_on_a_full_disk(tmp_path: Path, file_limit: Callable[[int], None]) -> None:
    file_limit(500_000)
    for size in (1000, 120_000, 124_800, 10**6):
        try:
            with atomic_path(tmp_path / "a.pth") as part, reporting_file(part) as file:
                torch.save({"a": torch.zeros(size)}, file)
        except DiskError as error:
            assert "ulimit" in str(error) and size > 120_000
        else:
            assert size <= 124_800
            assert torch.equal(torch.load(tmp_path / "a.pth", weights_only=True)["a"], torch.zeros(size))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_leftovers_of_dead_processes_are_removed_and_no_others(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    names = {
        "mine": f".a.mp4.{part_owner()}.part",
        "running": f".b.png.{host}-{os.getppid()}.part.png",
        "dead": f".c.npz.{host}-{ended.pid}.part",
        "dead with a suffix": f".c.pt2.{host}-{ended.pid}.part.pt2",
        "elsewhere": f".d.elsewhere-{ended.pid}.part",
        "elsewhere long ago": f".e.elsewhere-{ended.pid}.part",
        "from before this process": f".f.{part_owner()}.part",
        "another file": ".g.part",
        "another folder": ".h-1.parts",
    }
    for name in names.values():
        (tmp_path / name).touch()
    (tmp_path / f".frames.{host}-{ended.pid}.part").mkdir()
    (tmp_path / f".frames.{host}-{ended.pid}.part" / "1.jpg").touch()
    for name, age in (("elsewhere long ago", 7200), ("from before this process", 10**7)):
        path = tmp_path / names[name]
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    remove_leftovers(tmp_path)
    kept = ("mine", "running", "elsewhere", "another file", "another folder")
    assert {path.name for path in tmp_path.iterdir()} == {names[name] for name in kept}
    remove_leftovers(tmp_path, every=True)
    assert {path.name for path in tmp_path.iterdir()} == {names[name] for name in kept if name != "elsewhere"}


def test_a_folder_is_replaced_where_asked(tmp_path: Path) -> None:
    (tmp_path / "out" / "old").mkdir(parents=True)
    with atomic_path(tmp_path / "out", replace_folder=True) as part:
        part.mkdir()
        (part / "new").touch()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["out", "out/new"]
