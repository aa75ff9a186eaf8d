"""Demo datasets: layouts, equal files from equal settings, resuming, and the command line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from demo_data.build import MANIFEST, build
from demo_data.command_line import main
from demo_data.formats import COLORS, FORMATS, render_color
from demo_data.scene import MOTIONS
from demo_data.settings import SPLITS, DemoSettings
from demo_data.shapes import SHAPES, render_shape_clip
from slowfast.config.defaults import get_cfg
from slowfast.errors import UserError

pytestmark = pytest.mark.slow

TINY = DemoSettings(seed=3, train=16, val=8, test=8, size=32, frames=6)
SMALL = DemoSettings(train=1, val=1, test=1, size=32, frames=3)


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "kinetics"
    assert build(out, TINY, workers=1).built
    return out


def test_kinetics_layout(made):
    names = (made / "categories.txt").read_text().splitlines()
    assert names == [f"{name}\t{label}" for label, name in enumerate(MOTIONS)]
    listed = []
    for split in SPLITS:
        lines = [line.split(" ") for line in (made / f"{split}.csv").read_text().splitlines()]
        assert len(lines) == TINY.count(split)
        assert set(Counter(label for _, label in lines).values()) == {TINY.count(split) // 8}
        assert all(list(MOTIONS)[int(label)] == Path(path).parent.name for path, label in lines)
        listed += [path for path, _ in lines]
    assert sorted(listed) == sorted(p.relative_to(made).as_posix() for p in made.rglob("*.mp4"))


def test_videos_are_h264_and_differ(made):
    seen = set()
    for path in made.rglob("*.mp4"):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264" and stream.average_rate == 30
        clip = decoded(path)
        assert clip.shape == (6, 32, 38, 3)
        seen.add(clip.tobytes())
    assert len(seen) == 32  # no clip appears twice, not even across splits


def test_equal_seeds_give_equal_frames_whatever_the_number_of_processes(made, tmp_path):
    build(tmp_path / "two", TINY, workers=2)
    paths = sorted(path.relative_to(made) for path in made.rglob("*.mp4"))
    for path in paths:
        np.testing.assert_array_equal(decoded(made / path), decoded(tmp_path / "two" / path))


def test_second_call_does_nothing_and_other_settings_make_it_anew(tmp_path):
    out = tmp_path / "demo"
    assert build(out, SMALL, workers=1).built
    before = contents(out)
    again = build(out, SMALL, workers=1)
    assert not again.built and again.samples == 3 and again.size > 0
    assert contents(out) == before
    assert build(out, replace(SMALL, seed=1), workers=1).built
    assert contents(out) != before


@pytest.mark.parametrize("damage", ["missing", "cut", "index"])
def test_damaged_folder_is_made_anew(tmp_path, damage):
    out = tmp_path / "demo"
    build(out, SMALL, workers=1)
    before = contents(out)
    victim = out / "test.csv" if damage == "index" else next(out.rglob("*.mp4"))
    if damage == "cut":
        victim.write_bytes(victim.read_bytes()[:100])
    else:
        victim.unlink()
    assert build(out, SMALL, workers=1).built
    assert contents(out) == before


def test_files_of_others_are_never_lost(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match=r"mine\.txt was not written by this tool"):
        build(tmp_path, TINY, workers=1)
    with pytest.raises(UserError, match="is a file"):
        build(tmp_path / "mine.txt", TINY, workers=1)
    out = tmp_path / "demo"
    build(out, SMALL, workers=1)
    (out / "notes.txt").write_text("precious")
    assert not build(out, SMALL, workers=1).built  # leaving the context loses nothing
    with pytest.raises(UserError, match=r"notes\.txt"):
        build(out, TINY, workers=1)
    assert (out / "notes.txt").read_text() == "precious" == (tmp_path / "mine.txt").read_text()


def test_foreign_manifest_is_not_taken_for_ours(tmp_path):
    (tmp_path / MANIFEST).write_text('{"made_by": "someone else"}')
    with pytest.raises(UserError, match=MANIFEST):
        build(tmp_path, TINY, workers=1)


def test_failure_leaves_the_old_folder_and_no_rest(tmp_path, monkeypatch):
    out = tmp_path / "demo"
    build(out, SMALL, workers=1)
    before = contents(out)
    real = FORMATS["kinetics"]

    def fail(path: Path, clip: np.ndarray) -> None:
        real.layout.write(path, clip)
        if path.name.startswith("val"):
            raise OSError("disk full")

    monkeypatch.setitem(FORMATS, "kinetics", replace(real, layout=replace(real.layout, write=fail)))
    with pytest.raises(OSError, match="disk full"):
        build(out, TINY, workers=1)
    assert contents(out) == before
    assert list(tmp_path.iterdir()) == [out]


def test_rests_of_killed_calls_are_removed_and_those_of_running_ones_kept(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    dead, alive = (tmp_path / f".demo.{host}-{number}.part" for number in (ended.pid, os.getppid()))
    for folder in (dead, alive):
        folder.mkdir()
    build(tmp_path / "demo", SMALL, workers=1)
    assert not dead.exists() and alive.exists()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"size": 33}, "--size 33"), ({"size": 16}, "--size 16"), ({"test": 0}, "--test 0"), ({"frames": 1}, "--frames 1"),
     ({"seed": -1}, "--seed -1")],
)  # fmt: skip
def test_unusable_settings_say_which(wrong, words):
    with pytest.raises(UserError, match=words):
        DemoSettings(**wrong)


def test_unknown_format_lists_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="Choices: .*kinetics"):
        build(tmp_path / "demo", DemoSettings(format="nonsense"))


def test_demo_config_fits_the_demo_data():
    cfg = get_cfg()
    cfg.merge_from_file(str(Path(__file__).parents[2] / "configs" / "Demo" / "KINETICS_MORPHMLP.yaml"))
    settings = DemoSettings()
    assert cfg.MODEL.NUM_CLASSES == len(MOTIONS) and not cfg.DATA.RANDOM_FLIP
    room = settings.frames - cfg.DATA.NUM_FRAMES * cfg.DATA.SAMPLING_RATE
    assert room // (cfg.TEST.NUM_ENSEMBLE_VIEWS - 1) > 0  # the views differ, and so do the crops:
    assert settings.width - settings.size >= cfg.TEST.NUM_SPATIAL_CROPS - 1


@pytest.mark.parametrize("label", range(len(COLORS)))
def test_every_frame_of_a_color_clip_tells_its_class(label):
    clip = render_color(label, DemoSettings(size=64, frames=4), np.random.default_rng(label)).astype(np.float32) / 255
    for frame in clip:
        hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)  # hue in degrees
        hues = hsv[(hsv[..., 1] > 0.58) & (hsv[..., 2] > 0.52), 0]  # the background is duller
        distance = (hues - label * 45 + 180) % 360 - 180
        assert len(hues) > 20 and np.abs(np.median(distance)) < 0.3 * 45 + 3


def test_color_demo_config_fits_its_data(tmp_path):
    cfg = get_cfg()
    cfg.merge_from_file(str(Path(__file__).parents[2] / "configs" / "Demo" / "KINETICS_CONVMLP_FRAMEWISE.yaml"))
    settings = replace(FORMATS["kinetics_colors"].default, train=8, val=8, test=8, size=32, frames=3)
    assert cfg.MODEL.NUM_CLASSES == len(COLORS) and cfg.MODEL.FRAMEWISE
    build(tmp_path / "demo", settings, workers=1)
    assert (tmp_path / "demo" / "categories.txt").read_text().split()[::2] == list(COLORS)
    assert len(list((tmp_path / "demo").rglob("*.mp4"))) == 24


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_moves_before_a_still_background(shape):
    clip = render_shape_clip(shape, 5, 64, 74, np.random.default_rng(3)).astype(int)
    brightest = clip.max(3)  # the background is duller
    covered = brightest > 150
    assert covered.any((1, 2)).all() and (covered[0] != covered[-1]).any()
    never = ~covered.any(0)
    eroded = cv2.erode(never.astype(np.uint8), np.ones((5, 5))) > 0  # away from the object's edges
    assert eroded.any() and (np.ptp(clip[:, eroded], axis=0) == 0).all()


def test_shape_clips_are_for_a_network_of_the_demo_images(tmp_path):
    settings = replace(FORMATS["kinetics_shapes"].default, test=8, size=32, frames=3)
    build(tmp_path / "demo", settings, workers=1)
    assert (tmp_path / "demo" / "categories.txt").read_text().split()[::2] == list(SHAPES)
    assert len(list((tmp_path / "demo").rglob("*.mp4"))) == 24


def test_command_line(tmp_path, capsys):
    out = tmp_path / "demo"
    words = ["--out", str(out), *"--train 1 --val 1 --test 1 --size 32 --frames 3 --workers 1".split()]
    assert main(words) == 0
    assert "3 samples" in capsys.readouterr().out
    assert main(words) == 0
    assert "already complete" in capsys.readouterr().out
    assert main([*words, "--workers", "0"]) == 2
    assert "argument --workers: '0'" in capsys.readouterr().err
    assert main(["--out", str(tmp_path), "--size", "31"]) == 2
    assert "argument --size: '31'" in capsys.readouterr().err


def test_tool_runs_from_any_folder(tmp_path):
    tool = Path(__file__).parents[2] / "tools" / "make_demo_data.py"
    words = "--out demo --train 1 --val 1 --test 1 --size 32 --frames 3".split()
    done = subprocess.run([sys.executable, str(tool), *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 samples" in done.stdout and (tmp_path / "demo" / "train.csv").is_file()
