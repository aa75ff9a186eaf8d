"""What is written beside its place and moved there, or deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from slowfast.runtime.unfinished import write_whole, written_whole


def test_files_and_folders_appear_whole(tmp_path: Path) -> None:
    with written_whole(tmp_path / "a" / "x.txt") as part:
        part.write_text("whole")
        assert not (tmp_path / "a" / "x.txt").exists()
    with written_whole(tmp_path / "a" / "folder", ".frames") as part:
        part.mkdir()
        (part / "1.jpg").touch()
    assert (tmp_path / "a" / "x.txt").read_text() == "whole"
    assert sorted(path.name for path in (tmp_path / "a").rglob("*")) == ["1.jpg", "folder", "x.txt"]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("old")
    for name, is_folder in (("x.txt", False), ("folder", True)):
        with pytest.raises(KeyError), written_whole(tmp_path / name) as part:
            part.mkdir() if is_folder else part.write_text("half")
            raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"] and (tmp_path / "x.txt").read_text() == "old"


def test_a_folder_finished_meanwhile_is_kept(tmp_path: Path) -> None:
    with written_whole(tmp_path / "folder") as part:
        part.mkdir()
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "1.jpg").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["1.jpg", "folder"]


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_whole(path, "old")
    with pytest.raises(TypeError):
        write_whole(path, 3)  # type: ignore[arg-type]
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_writers_find_the_suffix_they_look_at(tmp_path: Path) -> None:
    with written_whole(tmp_path / "graph.pt2", suffix=".pt2") as part:
        assert part.suffix == ".pt2" and part.name.startswith(".graph.pt2.")
        part.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["graph.pt2"]
