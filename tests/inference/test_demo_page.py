"""Page of `slowfast demo`: outputs, invalid uploads, server, browser, and shutdown by a signal."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from video_files import write_video

from slowfast.cli import demo
from slowfast.cli.setup import load_for_evaluation
from slowfast.datasets.decode import open_video
from slowfast.errors import UserError
from slowfast.event_driven.activity import Savings, VideoActivity
from slowfast.event_driven.engine import EventDrivenInference
from slowfast.event_driven.readers import read_frames
from slowfast.event_driven.sources import find_files
from slowfast.event_driven.video_frames import FrameResize
from slowfast.inference.demo_analysis import AnalysisStopped, FileAnalyzer
from slowfast.inference.demo_page import _distinct, _text
from slowfast.inference.demo_server import bind
from tests.chromium import MISSING, find_chromium, running_chromium
from tests.event_driven.settings import EMPTY, small_evmlp

IMAGES = ("TEST.DATASET", "imagenet", "TRAIN.DATASET", "imagenet", "TEST.NUM_ENSEMBLE_VIEWS", 1)
NAMES = ["a*b", "<i>", "c", "d", "e", "f", "g", "h"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights with class names, a video, an image and files that cannot be read."""
    from slowfast.models import build_model  # built only if a test needs it
    from tests.random_weights import randomized

    path = tmp_path_factory.mktemp("demo")
    cfg = load_for_evaluation(str(EMPTY), [*small_evmlp(path), *IMAGES])
    torch.save({"model_state": randomized(build_model(cfg)).state_dict(), "class_names": NAMES}, path / "w.pyth")
    write_video(path / "clip.mp4", frames=40, size=(48, 64))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(path / "photo.png")
    (path / "broken.mp4").write_bytes((path / "clip.mp4").read_bytes()[:300])
    (path / "text.png").write_text("not an image")
    return path


def overrides(folder: Path) -> list[str]:
    return [str(word) for word in (*small_evmlp(folder), *IMAGES, "TEST.CHECKPOINT_FILE_PATH", folder / "w.pyth")]


@pytest.fixture(scope="module")
def analyzer(folder: Path) -> FileAnalyzer:
    return FileAnalyzer.from_config(load_for_evaluation(str(EMPTY), [*overrides(folder), "EVENT.COMPILED", False]))


def test_a_video(analyzer: FileAnalyzer, folder: Path, tmp_path: Path) -> None:
    result = analyzer(folder / "clip.mp4", "clip.mp4", tmp_path, threshold=0.1)
    assert len(result.best) == 5 and result.best[0][1] >= result.best[1][1]
    assert result.heat_map is not None and result.patches is not None and result.activity is not None
    with open_video(result.heat_map) as video:
        assert (video.num_frames, video.height, video.width) == (16, 320, 640)
    with open_video(result.patches) as video:
        assert video.num_frames == 40
    # Reference: frame by frame.
    assert analyzer.changed is not None
    cfg = analyzer.changed.cfg
    engine = EventDrivenInference(analyzer.changed.model, 0.1, compiled=False)
    frames, _ = read_frames(find_files([folder / "clip.mp4"], 1).videos[0], FrameResize.from_config(cfg), 0)
    activity = VideoActivity("", Savings.of(engine.network))
    for frame in frames:
        x = (torch.from_numpy(frame).permute(2, 0, 1)[None] / 255 - torch.tensor(cfg.DATA.MEAN)[:, None, None]) / (
            torch.tensor(cfg.DATA.STD)[:, None, None]
        )
        one = engine(x)
        activity.savings.add(torch.tensor([one.active_patches]), torch.tensor([one.macs]))
    assert result.activity.frames == 40
    assert result.activity.macs_saved == pytest.approx(activity.savings.macs_saved, abs=0.5)
    assert 0 < result.activity.macs_saved < 100


def test_an_image(analyzer: FileAnalyzer, folder: Path, tmp_path: Path) -> None:
    result = analyzer(folder / "photo.png", "photo.png", tmp_path)
    assert result.heat_map is not None and result.patches is None
    assert Image.open(result.heat_map).size == (640, 320)


@pytest.mark.parametrize("name", ["broken.mp4", "text.png"])
def test_files_that_cannot_be_read(analyzer: FileAnalyzer, folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"^shown\."):
        analyzer(folder / name, f"shown{Path(name).suffix}", tmp_path)


def test_an_analysis_ends_when_the_server_stops(analyzer: FileAnalyzer, folder: Path, tmp_path: Path) -> None:
    analyzer.stop.set()
    try:
        with pytest.raises(AnalysisStopped):
            analyzer(folder / "clip.mp4", "clip.mp4", tmp_path)
    finally:
        analyzer.stop.clear()


def test_names() -> None:
    assert _distinct([("a", 0.5), ("b", 0.3), ("a", 0.1)]) == [("a (1)", 0.5), ("b", 0.3), ("a (3)", 0.1)]
    assert _text("<b>a*b_c`") == r"&lt;b&gt;a\*b\_c\`"


def test_a_port_that_is_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert demo.main(["--cfg", str(EMPTY), "--port", str(port), *overrides(folder)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"error: --port: {port} is in use on 127.0.0.1. Choose another port, or 0 for any free one"]
    assert demo.main(["--cfg", str(EMPTY), "--host", "no such host", *overrides(folder)]) == 2
    assert "--host: cannot listen on no such host" in capsys.readouterr().err


def test_without_gradio(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert demo.main(["--cfg", str(EMPTY), "--port", "0", *overrides(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: slowfast demo needs gradio") and line.endswith('Run pip install "slowfast[demo]"')


def serve_while(folder: Path, monkeypatch: pytest.MonkeyPatch, visit: Callable[[str], None], number: int) -> None:
    """Run the command while another thread visits its page, and end it by a signal."""
    pytest.importorskip("gradio", reason="needs the extra demo")
    lines: list[str] = []
    failures: list[BaseException] = []
    monkeypatch.setattr(demo, "show", lines.append)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)

    def visit_and_end() -> None:
        try:
            until = time.monotonic() + 240
            while not lines and time.monotonic() < until:
                time.sleep(0.05)
            assert len(list(folder.glob("slowfast-demo-*"))) == 1
            visit(lines[0].split()[1])
        except BaseException as error:
            failures.append(error)
        for _ in range(2):  # the second one, as `timeout` forwards it, leaves nothing behind either
            os.kill(os.getpid(), number)
            time.sleep(0.02)

    visitor = threading.Thread(target=visit_and_end)
    visitor.start()
    status = demo.main(["--cfg", str(EMPTY), "--port", "0", "--max-upload", "1", *overrides(folder)])
    visitor.join()
    if failures:
        raise failures[0]
    assert status == 0
    assert lines[-1] == f"Received {signal.Signals(number).name}, the server has ended"
    assert not list(folder.glob("slowfast-demo-*"))  # nothing is left of the uploads


@pytest.mark.slow
def test_the_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def visit(address: str) -> None:
        import httpx
        from gradio_client import Client, handle_file

        page = httpx.get(address, trust_env=False)
        assert page.status_code == 200 and "connect-src 'self'" in page.headers["content-security-policy"]
        assert httpx.get(address, headers={"Host": "example.org"}, trust_env=False).status_code == 400
        upload = f"{address}gradio_api/upload"
        large = httpx.post(upload, files={"files": ("large.mp4", b"0" * (2 << 20))}, trust_env=False)
        assert large.status_code == 413
        client = Client(address, verbose=False, analytics_enabled=False, download_files=str(folder / "downloads"))

        def analyze(file: Any) -> Sequence[Any]:
            result: Sequence[Any] = client.predict(file, 0.05, api_name="/analyze")
            return result

        for name, reason in (("broken.mp4", "not a video"), ("text.png", "image")):
            message, best, *_ = analyze(handle_file(str(folder / name)))
            assert "Not analyzed" in message["value"] and reason in message["value"] and not best
            assert str(folder) not in message["value"]
        # Neither other files of the server nor URLs: nothing is fetched from elsewhere.
        call = f"{address}gradio_api/call/analyze"
        for other in (str(folder / "photo.png"), "https://192.0.2.1/photo.png"):
            data = [{"path": other, "meta": {"_type": "gradio.FileData"}}, 0.05]
            number = httpx.post(call, json={"data": data}, trust_env=False).json()["event_id"]
            answer = httpx.get(f"{call}/{number}", timeout=180, trust_env=False).text
            assert "event: error" in answer and "confidences" not in answer
        message, best, heat_video, *_, table = analyze(handle_file(str(folder / "clip.mp4")))
        assert not message["value"] and best["label"] in NAMES and len(best["confidences"]) == 5
        assert Path(heat_video["value"]).stat().st_size > 0 and "multiply-adds saved" in table

    serve_while(folder, monkeypatch, visit, signal.SIGTERM)


@pytest.mark.skipif(find_chromium() is None, reason=MISSING)
@pytest.mark.slow
def test_a_browser(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def visit(address: str) -> None:
        program = find_chromium()
        assert program is not None
        with running_chromium(program) as browser:
            browser.open(address)
            browser.wait_for("document.querySelector('#upload input[type=file]') !== null")
            for name, shown in (("broken.mp4", "#message"), ("clip.mp4", "video[src]"), ("photo.png", "img[src*=png]")):
                browser.choose_file("#upload input[type=file]", folder / name)
                browser.wait_for(f"document.querySelector({shown!r}) !== null")
                if name != "photo.png":
                    text = "broken.mp4: not a video" if name == "broken.mp4" else "multiply-adds saved"
                    browser.wait_for(f"document.body.innerText.includes({text!r})")
                    browser.run("document.querySelector('#upload button[aria-label=Clear]').click()")
                    browser.wait_for("document.querySelector('#upload input[type=file]') !== null")
            browser.screenshot(tmp_path / "page.png")
            image = cv2.imread(str(tmp_path / "page.png"))
            assert image is not None and image.std() > 5
            assert not browser.errors
            # Nothing leaves the machine.
            assert {request.split("/")[2] for request in browser.requests} == {address.split("/")[2]}

    serve_while(folder, monkeypatch, visit, signal.SIGINT)
