"""Passwords and tokens of stream addresses appear in no file, file name or output of a run."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from slowfast.cli import setup
from slowfast.cli.run import run
from slowfast.cli.setup import load_config
from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError
from tests.event_driven.settings import EMPTY, on_videos
from tests.video_files import write_video

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
    return setup.main(["--cfg", str(EMPTY), *map(str, line)], run)


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
