"""Lists of video sources: names, comments, and addresses that contain the same characters."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowfast.errors import DataError
from slowfast.event_driven.source_list import MAX_NAME, read_list
from slowfast.event_driven.sources import find_sources, source_files


def names_and_places(folder: Path, text: str, encoding: str = "utf-8") -> list[tuple[str, str]]:
    (folder / "cameras.txt").write_bytes(text.encode(encoding))
    return [(one.name, one.place) for one in read_list(folder / "cameras.txt")]


def test_lines_of_every_kind(tmp_path: Path) -> None:
    for name in ("a.mp4", "b = c.mp4", "day #1.mp4"):
        (tmp_path / name).touch()
    text = """
    # cameras of the ground floor
    front door = rtsp://u:p@10.0.0.5/live?channel=1&subtype=0   # by the street
    rtsp://10.0.0.6/live?name=x
    Küche=rtsp://10.0.0.7/a=b
    0
    usb 1.2 = 1
    a.mp4
    b = c.mp4
    day #1.mp4
    film = a.mp4
    """
    assert names_and_places(tmp_path, text) == [
        ("front door", "rtsp://u:p@10.0.0.5/live?channel=1&subtype=0"),
        ("", "rtsp://10.0.0.6/live?name=x"),
        ("Küche", "rtsp://10.0.0.7/a=b"),
        ("", "0"),
        ("usb 1.2", "1"),
        ("", "a.mp4"),
        ("", "b = c.mp4"),
        ("", "day #1.mp4"),
        ("film", "a.mp4"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_byte_order_marks_and_line_ends(tmp_path: Path, encoding: str, end: str) -> None:
    text = end.join(("door = tcp://h:1", "", "gate = tcp://h:2", ""))
    assert names_and_places(tmp_path, text, encoding) == [("door", "tcp://h:1"), ("gate", "tcp://h:2")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n\n", "contains no video, camera or stream"),
        ("a = tcp://h:1\n\nA = tcp://h:2", "line 3: the name A is that of line 1"),
        ("= tcp://h:1", "line 1: the name before '=' is empty"),
        ("a/b = tcp://h:1", "line 1: the name a/b contains '/'"),
        ("http://a = tcp://h:1", "contains ':'"),
        ("a\tb = tcp://h:1", r"contains '\\t'"),
        ("nul = tcp://h:1", "nul is not a valid file name"),
        (".. = tcp://h:1", ".. is not a valid file name"),
        (f"{'x' * (MAX_NAME + 1)} = tcp://h:1", "has 65 characters"),
        ("door = nowhere.mp4", "line 1: nowhere.mp4 is not a file, camera number or stream address"),
        ("door = ", "is not a file"),
        ("x" * 5000, "is not a file"),
    ],
)
def test_invalid_lists(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        names_and_places(tmp_path, text)


NAMES = st.text(st.characters(categories=("L", "N", "Zs"), include_characters="_-.()+&,"), min_size=1, max_size=20)


@given(NAMES)
def test_names_are_those_of_files(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "names"
    folder.mkdir(exist_ok=True)
    try:
        found = names_and_places(folder, f"{name} = tcp://h:1")
    except DataError:
        return
    assert found == [(name.strip(), "tcp://h:1")]
    [file] = source_files(find_sources(str(folder / "cameras.txt"), 1).videos, folder, ".png").values()
    assert file == folder / f"{name.strip()}.png"
    file.touch()
    file.unlink()


def test_files_and_reports_are_named_after_the_source(tmp_path: Path) -> None:
    (tmp_path / "cameras.txt").write_text("door 1.5 = rtsp://u:s3cret@h/live\nrtsp://u:s3cret@h/live\nrtsp://h/live")
    videos = find_sources(str(tmp_path / "cameras.txt"), 1).videos
    assert [video.record.name for video in videos] == ["door 1.5", "rtsp://***@h/live", "rtsp://h/live"]
    assert [video.path for video in videos] == ["rtsp://***@h/live", "rtsp://***@h/live", "rtsp://h/live"]
    files = source_files(videos, tmp_path, ".mp4")
    assert [file.name for file in files.values()] == ["door 1.5.mp4", "live.mp4", "live_2.mp4"]
