"""Video sources: lists of cameras, streams and files, and passwords of addresses, which appear in no output."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowfast.cli import train
from slowfast.cli.run import run
from slowfast.cli.setup import load_config
from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError, DataError
from slowfast.event_driven.sources import MAX_NAME, find_sources, read_list, source_files
from tests.event_driven.settings import EMPTY, on_videos
from tests.video_files import write_video


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


SECRETS = ("s3cret", "t0k3n")


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[str]:
    """Serve a video; return its address without scheme and user."""
    video = write_video(tmp_path / "video.mkv", 20, size=(48, 64)).read_bytes()

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(video)))
            self.end_headers()
            self.wfile.write(video)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}/live.mkv"
        server.shutdown()


def check(output: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """Check that no secret is anywhere; return the output."""
    out, err = capfd.readouterr()
    assert not any(secret in out + err for secret in SECRETS)
    files = list(output.rglob("*"))
    assert files
    for file in files:
        assert not any(secret in str(file) for secret in SECRETS)
        assert not file.is_file() or not any(secret.encode() in file.read_bytes() for secret in SECRETS), file
    return out + err


def start(place: str, output: Path, *more: object) -> int:
    line = [*on_videos(place, output), "EVENT.ANNOTATE", True, "EVENT.COMPARE", False, *more]
    return train.main(["--cfg", str(EMPTY), *map(str, line)], run)


def test_address_of_a_readable_camera(camera: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert start(f"http://admin:s3cret@{camera}?token=t0k3n", output) == 0
    screen = check(output, capfd)
    hidden = f"http://***@{camera}?token=***"
    assert hidden in screen
    for name in ("config.yaml", "event_results.json", "event_videos.csv", "event_frames.csv", "stdout.log"):
        assert hidden in (output / name).read_text(), name
    assert len(list((output / "annotated").iterdir())) == len(list((output / "activity").iterdir())) == 1
    with pytest.raises(
        ConfigError, match=r"http://\*\*\*@.* was hidden when the config was saved. Give the full address"
    ):
        load_config(output / "config.yaml")


def test_address_without_a_path(camera: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert start(f"http://admin:s3cret@{camera.split('/')[0]}", tmp_path / "out") == 0
    check(tmp_path / "out", capfd)


def test_missing_cameras_of_a_list(camera: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    listed = tmp_path / "cameras.txt"
    gone = "rtsp://admin:s3cret@127.0.0.1:9/x"
    listed.write_text(f"{gone}\nhttp://127.0.0.1:9/v?password=t0k3n\n")
    assert start(str(listed), tmp_path / "none", "EVENT.STREAMS", 2) == 2
    assert "rtsp://***@127.0.0.1:9/x" in check(tmp_path / "none", capfd)
    listed.write_text(f"{gone}\nhttp://u:s3cret@{camera}\n")
    assert start(str(listed), tmp_path / "one", "EVENT.STREAMS", 2) == 0
    check(tmp_path / "one", capfd)
    assert "rtsp://***@127.0.0.1:9/x" in (tmp_path / "one" / "failed.csv").read_text()
    listed.write_text("rtsp://***@127.0.0.1:9/x\n")
    assert start(str(listed), tmp_path / "saved") == 2
    assert "Give the full address again" in capfd.readouterr().err and not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    "line",
    [
        ("DATA.PATH_PREFIX", "rtsp:/admin:s3cret@host/x"),
        ("TEST.CHECKPOINT_FILE_PATH", "https://bucket/w.pyth?X-Amz-Signature=s3cret"),
        (
            "TRAIN.CHECKPOINT_FILE_PATH",
            "s3://key:s3cret@bucket/w.pyth",
            "EVENT.ENABLE",
            "False",
            "TRAIN.ENABLE",
            "True",
        ),
        ("DATA.PATH_TO_DATA_DIR", "https://admin:s3cret@host/data", "EVENT.ENABLE", "False", "TRAIN.ENABLE", "True"),
        ("https://admin:s3cret@host/data",),
        ("NUM_GPUS", "https://admin:s3cret@host/data"),
    ],
)
def test_messages_about_addresses(
    camera: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], line: tuple[str, ...]
) -> None:
    assert start(f"http://admin:s3cret@{camera}", tmp_path / "out", *line) == 2
    out, err = capfd.readouterr()
    assert "***" in err and "s3cret" not in out + err and not (tmp_path / "out").exists()


def test_config_in_memory_keeps_secrets(tmp_path: Path) -> None:
    cfg = ConfigNode({"A": "rtsp://u:s3cret@h/x", "B": ["plain", "http://h/?sig=s3cret"], "C": 3})
    cfg.freeze()
    assert cfg.dump() == "A: rtsp://***@h/x\nB:\n- plain\n- http://h/?sig=***\nC: 3\n"
    assert cfg.A == "rtsp://u:s3cret@h/x" and cfg.B[1].endswith("s3cret") and cfg.is_frozen()
