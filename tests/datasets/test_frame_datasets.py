"""Something-Something and ImageNet datasets: views, training clips, failures, one training run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_settings
from video_files import write_video

from demo_data.build import build
from demo_data.scene import MOTIONS
from demo_data.settings import DemoSettings
from demo_data.shapes import SHAPES
from slowfast.cli.run import run
from slowfast.cli.validate_components import validate
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.datasets import build_dataset, build_loader
from slowfast.datasets.build import class_names
from slowfast.datasets.clip_dataset import VideoEvalDataset
from slowfast.engine.forward import ClipForward
from slowfast.errors import ConfigError
from tests.report_content import report_content


def demo(folder: Path, layout: str, frames: int = 20) -> Path:
    build(folder, DemoSettings(format=layout, train=16, val=8, test=8, size=32, frames=frames), workers=1)
    return folder


@pytest.fixture(scope="module")
def frames_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo(tmp_path_factory.mktemp("data") / "something", "something")


@pytest.fixture(scope="module")
def images_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo(tmp_path_factory.mktemp("data") / "imagenet", "imagenet")


@pytest.fixture
def sth_cfg(frames_folder: Path, tmp_path: Path) -> ConfigNode:
    cfg = get_cfg()
    cfg.merge_from_list(tiny_settings(frames_folder, tmp_path / "out"))
    cfg.merge_from_list(["TRAIN.DATASET", "sth", "TEST.DATASET", "ssv1", "DATA.RANDOM_FLIP", False])
    cfg.merge_from_list(["DATA.PATH_PREFIX", frames_folder / "frames", "DATA_LOADER.NUM_WORKERS", 0])
    return cfg


@pytest.fixture
def image_cfg(images_folder: Path, tmp_path: Path) -> ConfigNode:
    cfg = get_cfg()
    cfg.merge_from_list(tiny_settings(images_folder, tmp_path / "out"))
    cfg.merge_from_list(["TRAIN.DATASET", "imagenet", "TEST.DATASET", "imagenet", "DATA_LOADER.NUM_WORKERS", 0])
    cfg.merge_from_list(["TEST.NUM_ENSEMBLE_VIEWS", 1, "TEST.NUM_SPATIAL_CROPS", 1])
    cfg.merge_from_list(["MODEL.MODEL_NAME", "ConvMLP", "CONVMLP.LAYERS", [1, 1, 1], "CONVMLP.CONV_LAYERS", 1])
    cfg.merge_from_list(["CONVMLP.EMBED_DIMS", [16, 16, 16], "CONVMLP.CONV_DIM", 8])
    return cfg


# ------------------------------------------------------------------ Something-Something
def test_views_take_other_frames_of_each_segment(sth_cfg: ConfigNode) -> None:
    sth_cfg.TEST.NUM_ENSEMBLE_VIEWS = 2
    videos = list(build_loader(sth_cfg, "test"))
    assert [video.record.label for video in videos] == list(range(8))
    for video in videos:  # 20 frames, segments of 19 / 4
        assert not video.failures and len(video.corners) == 3 and video.frames is not None
        assert video.frames.shape[1] == 32  # the short side is the crop's
        assert len(video.frames) == 8  # no frame is in both views
    names = class_names(sth_cfg, "test")
    assert names == list(MOTIONS)


def test_one_crop_is_the_center_of_the_crop_sized_short_side(sth_cfg: ConfigNode) -> None:
    (video, *_) = build_loader(sth_cfg, "val")
    assert video.frames is not None and video.frames.shape[1:] == (32, 38, 3)
    assert video.corners == [(0, 3)] and len(video.frame_index) == 1


def test_training_clips_are_seeded_and_ordered(sth_cfg: ConfigNode) -> None:
    batches = {}
    for workers in (0, 2):
        sth_cfg.DATA_LOADER.NUM_WORKERS = workers
        batches[workers] = list(build_loader(sth_cfg, "train"))
    for one, other in zip(batches[0], batches[2], strict=True):
        assert torch.equal(one.clips, other.clips) and one.names == other.names
    assert batches[0][0].clips.shape == (8, 4, 32, 32, 3)


def test_channels_are_reversed_on_the_device(sth_cfg: ConfigNode) -> None:
    clips = torch.randint(0, 256, (2, 4, 8, 8, 3), dtype=torch.uint8)
    plain = ClipForward.from_config(sth_cfg, torch.device("cpu")).prepare(clips)
    sth_cfg.DATA.REVERSE_INPUT_CHANNEL = True
    reversed_ = ClipForward.from_config(sth_cfg, torch.device("cpu")).prepare(clips)
    assert torch.equal(reversed_, plain.flip(1)) and not torch.equal(reversed_, plain)


def test_broken_frames_and_folders_are_listed(sth_cfg: ConfigNode, frames_folder: Path, tmp_path: Path) -> None:
    media = tmp_path / "frames"
    shutil.copytree(frames_folder / "frames", media)
    for number in range(1, 21):
        (media / "test_00002" / f"{number:05d}.jpg").write_bytes(b"")
    whole = (media / "test_00003" / "00011.jpg").read_bytes()
    (media / "test_00003" / "00011.jpg").write_bytes(whole[: len(whole) // 2])
    (media / "test_00004" / "00020.jpg").unlink()
    sth_cfg.merge_from_list(["DATA.PATH_PREFIX", media, "TEST.NUM_ENSEMBLE_VIEWS", 5])
    videos = list(build_loader(sth_cfg, "test"))
    found = {video.record.name: [(f.lost, f.reason) for f in video.failures] for video in videos if video.failures}
    assert set(found) == {"test_00002", "test_00003", "test_00004"}
    ((lost, reason),) = found["test_00002"]
    assert lost and "the file is empty" in reason
    ((lost, reason),) = found["test_00003"]
    assert not lost and "00011.jpg: the image is truncated" in reason
    ((lost, reason),) = found["test_00004"]
    assert lost and "the folder contains 19 of the 20 frames in the index" in reason


def test_official_lists_and_videos(sth_cfg: ConfigNode, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "1.mp4", frames=20, size=(32, 40))
    write_video(videos / "2.webm", frames=12, codec="libvpx-vp9", size=(32, 40))
    labels = {"Holding something": "0", "Moving something up": "1"}
    lists: dict[str, object] = {"labels": labels}
    lists["validation"] = [
        {"id": "2", "template": "Moving [something] up"},
        {"id": "1", "template": "Holding [something]"},
    ]
    for name, content in lists.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    sth_cfg.merge_from_list(["DATA.PATH_TO_DATA_DIR", tmp_path, "DATA.PATH_PREFIX", videos, "MODEL.NUM_CLASSES", 2])
    sth_cfg.merge_from_list(["DATA.LABEL_PATH_TEMPLATE", "{}.json", "TEST.NUM_ENSEMBLE_VIEWS", 1])
    found = list(build_loader(sth_cfg, "test"))
    assert [(video.record.name, video.record.label) for video in found] == [("2.webm", 1), ("1.mp4", 0)]
    assert all(video.frames is not None and not video.failures for video in found)
    assert class_names(sth_cfg, "test") == list(labels)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("DATA.LABEL_PATH_TEMPLATE", "split.txt"),
        ("DATA.LABEL_PATH_TEMPLATE", "{:d}.txt"),
        ("DATA.IMAGE_TEMPLATE", "frame.jpg"),
        ("DATA.IMAGE_TEMPLATE", "{:05d"),
        ("DATA.IMAGE_TEMPLATE", "{name}.jpg"),
        ("DATA.SAMPLING", "balance"),
        ("DATA.IN_VAL_CROP_RATIO", 0.0),
        ("DATA.IN_VAL_CROP_RATIO", 1.1),
        ("DATA.IN_VAL_INTERPOLATION", "cubic"),
        ("MODEL.CLASS_WEIGHTS", "missing.txt"),
    ],
)
def test_unusable_values(sth_cfg: ConfigNode, key: str, value: object) -> None:
    sth_cfg.merge_from_list([key, value])
    with pytest.raises(Exception, match=key) as caught:
        validate(sth_cfg)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ ImageNet
def test_images_are_clips_of_one_frame_and_reach_the_network_without_time(image_cfg: ConfigNode) -> None:
    (batch, *_) = build_loader(image_cfg, "train")
    assert batch.clips.shape == (8, 1, 32, 32, 3)
    forward = ClipForward.from_config(image_cfg, torch.device("cpu"), "test")
    assert forward.prepare(batch.clips).shape == (8, 3, 32, 32)
    videos = build_dataset(image_cfg, "test")
    assert isinstance(videos, VideoEvalDataset)
    video = videos[3]
    assert video.frames is not None and video.frames.shape == (1, 36, 42, 3)  # 32 / 0.875
    assert (video.corners, video.record.label, video.size) == ([(2, 5)], 3, 32)
    assert class_names(image_cfg, "test") == list(SHAPES)


def test_repeated_augmentation_of_one_image(image_cfg: ConfigNode) -> None:
    image_cfg.AUG.ENABLE, image_cfg.AUG.NUM_SAMPLE = True, 3
    image_cfg.AUG.AA_TYPE = "autoaugment"
    (batch, *_) = build_loader(image_cfg, "train")
    assert batch.clips.shape == (24, 1, 32, 32, 3)
    assert len({clip.numpy().tobytes() for clip in batch.clips[:3]}) == 3
    assert batch.labels[:3].unique().numel() == 1


def test_an_image_has_one_view(image_cfg: ConfigNode) -> None:
    image_cfg.TEST.NUM_ENSEMBLE_VIEWS = 4
    with pytest.raises(ConfigError, match="TEST.NUM_ENSEMBLE_VIEWS .4.*one temporal view"):
        validate(image_cfg)


def test_views_that_see_little_of_a_frame_are_told(image_cfg: ConfigNode, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "slowfast"):
        build_dataset(image_cfg, "test")
        assert not caplog.messages
        image_cfg.DATA.IN_VAL_CROP_RATIO = 0.25
        build_dataset(image_cfg, "test")
    [message] = caplog.messages
    assert "less than half of the 128-pixel short side" in message and "DATA.IN_VAL_CROP_RATIO" in message


def test_training_and_testing_on_images(image_cfg: ConfigNode, tmp_path: Path) -> None:
    image_cfg.MODEL.CLASS_WEIGHTS, image_cfg.DATA.SAMPLING = "balanced", "balanced"
    image_cfg.SOLVER.MAX_EPOCH = 1
    validate(image_cfg)
    run(image_cfg)
    results = json.loads((tmp_path / "out" / "test_results.json").read_text())
    assert results["videos"] == 8 and results["failed"] == 0
    page = report_content(tmp_path / "out" / "report.html")
    assert page["confusion"] is not None and len(page["mistakes"]) == round(8 * (1 - results["top1"] / 100))
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["loss"]) for row in rows if row["split"] == "train")
