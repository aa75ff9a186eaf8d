"""File suffixes: all video suffixes of FFmpeg are known, unknown ones are reported."""

from __future__ import annotations

import logging
from pathlib import Path

import av
import pytest
from av.format import ContainerFormat, formats_available

from slowfast.datasets.decode.reader import IMAGE_SUFFIXES, VIDEO_SUFFIXES, skipped_note
from slowfast.datasets.index.folder import scan
from slowfast.prepare.jobs import find_jobs
from tests.video_files import write_video

# FFmpeg's "video" formats that are not video files: audio with a cover, playlists, single images, raw samples, ...
ELSEWHERE = set(
    "a64 afc aif aifc aiff flac m4a m4b mp3 ra wma isma m3u8 mpd avif fits ico flm rgb yuv avs cpk dvd swf".split()
)


def video_extensions() -> set[str]:
    """Return the extensions of all formats for which FFmpeg's muxers choose a video codec."""
    found: set[str] = set()
    for name in formats_available:
        try:
            kind = ContainerFormat(name, "w")
            with av.open("/dev/null", "w", format=name) as out:
                if out.default_video_codec not in ("none", "", None) and name != "image2":
                    found |= {extension.strip().lower() for extension in kind.extensions}
        except (ValueError, av.FFmpegError):
            continue
    return found


def test_suffixes_of_ffmpeg_video_formats_are_known() -> None:
    found = video_extensions()
    assert {"mp4", "mkv", "webm", "gif", "mxf", "asf", "nut", "ogv", "h264"} <= found
    unknown = {name for name in found if f".{name}" not in VIDEO_SUFFIXES | IMAGE_SUFFIXES} - ELSEWHERE
    assert not unknown
    assert not VIDEO_SUFFIXES & IMAGE_SUFFIXES


def test_files_with_unknown_suffixes_are_named() -> None:
    names = ["a.mp4", "b.MXF", "notes.txt", "labels.csv", "c.xyz", "no_suffix", ".hidden.xyz", "folder/d.braw", "e.jpg"]
    note = skipped_note("videos", names, VIDEO_SUFFIXES)
    assert note == "videos: 3 files were skipped because of an unknown suffix: c.xyz, folder/d.braw, no_suffix"
    assert skipped_note("videos", names[:4], VIDEO_SUFFIXES) is None
    many = skipped_note("videos", [f"{number}.xyz" for number in range(9)], VIDEO_SUFFIXES)
    assert many is not None and many.endswith("0.xyz, 1.xyz, 2.xyz, ...")


def test_searches_warn_about_unknown_suffixes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_video(tmp_path / name / "x.gif", frames=3, codec="gif", pix_fmt="rgb8")
        (tmp_path / name / "y.braw").touch()
    logger = logging.getLogger("slowfast")
    logger.addHandler(caplog.handler)
    try:
        jobs = find_jobs(tmp_path, tmp_path.parent / "target")
        collection = scan(tmp_path)
    finally:
        logger.removeHandler(caplog.handler)
    assert [job.name for job in jobs] == ["a/x.gif", "b/x.gif"]
    assert [sample.name for sample in collection.samples] == ["a/x.gif", "b/x.gif"]
    notes = [record for record in caplog.records if "unknown suffix" in record.getMessage()]
    assert {record.filename for record in notes} == {"jobs.py", "folder.py"}
    assert all("2 files were skipped" in note.getMessage() for note in notes)
    assert all(note.getMessage().endswith("a/y.braw, b/y.braw") for note in notes)
