"""Datasets of event recordings: batches, workers, padding, repairs, failures."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from event_files import SENSOR, event_settings, write_folder, write_recording

from slowfast.cli.validate_components import validate
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.datasets import build_dataset, build_loader
from slowfast.datasets.build import process_parts
from slowfast.datasets.collate import split_clips, stack_clips
from slowfast.datasets.types import EvalRecording, TrainBatch
from slowfast.errors import ConfigError
from slowfast.utils.distributed import World


@pytest.fixture
def cfg(tmp_path: Path) -> ConfigNode:
    write_folder(tmp_path / "data")
    cfg = get_cfg()
    cfg.merge_from_list(event_settings(tmp_path / "data", tmp_path / "out"))
    return cfg


def epoch(cfg: ConfigNode, at: int = 0, world: World | None = None) -> list[TrainBatch]:
    loader = build_loader(cfg, "train", world)
    loader.batches.start_at(at)
    return list(loader)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def all_on(cfg: ConfigNode) -> None:
    cfg.AUG.ENABLE, cfg.AUG.NUM_SAMPLE = True, 2
    cfg.DVS.FLIP_X, cfg.DVS.TRANSLATE, cfg.DVS.DROP, cfg.DVS.NOISE, cfg.DVS.ROTATE = True, 3, 0.5, 0.2, 20.0


def test_batch_format(cfg: ConfigNode) -> None:
    (batch, *_) = epoch(cfg)
    assert {key: value.dtype for key, value in batch.clips.items()} == {
        "x": torch.int64,
        "y": torch.int64,
        "t": torch.float32,
        "p": torch.int64,
        "valid": torch.bool,
    }
    assert all(value.shape == (8, 24) for value in batch.clips.values()) and batch.clips["valid"].all()
    assert (batch.clips["t"][:, 0] == 0).all() and (batch.clips["t"].diff() >= 0).all()
    assert (batch.clips["t"][:, -1] == 1).all() and batch.labels.shape == (8,)


def test_batches_do_not_depend_on_workers_or_processes(cfg: ConfigNode) -> None:
    all_on(cfg)
    want = epoch(cfg, at=3)
    cfg.DATA_LOADER.NUM_WORKERS = 2
    for one, other in zip(want, epoch(cfg, at=3), strict=True):
        assert one.names == other.names and same(one.clips, other.clips)
    assert not torch.equal(want[0].clips["x"][0], want[0].clips["x"][1]), "both samples of a recording are the same"
    cfg.DATA_LOADER.NUM_WORKERS = 0
    for rank in range(2):
        world = World(rank=rank, size=2)
        (part, *_) = epoch(cfg, at=3, world=world)
        rows = [2 * place + sample for place in sum(process_parts(cfg, world), []) for sample in range(2)]
        length = part.clips["x"].shape[1]
        whole = {key: value[rows][:, :length] for key, value in want[0].clips.items()}
        assert same(part.clips, whole)


def test_epochs_differ_and_seeds_do(cfg: ConfigNode) -> None:
    first = epoch(cfg)[0].clips
    assert not same(first, epoch(cfg, at=1)[0].clips)
    cfg.RNG_SEED = 1
    assert not same(first, epoch(cfg)[0].clips)


def test_short_recordings_are_padded(cfg: ConfigNode, tmp_path: Path) -> None:
    for path in (tmp_path / "data").rglob("*.npz"):
        write_recording(path, 10, 0)
    batch = epoch(cfg)[0]
    assert batch.clips["valid"].sum(1).tolist() == [10] * 8 and (batch.clips["x"][:, 10:] == -1).all()
    cfg.DVS.NUM_EVENTS = 0
    assert epoch(cfg)[0].clips["x"].shape == (8, 10)


def test_samples_of_a_test_recording_differ_and_repeat(cfg: ConfigNode) -> None:
    recordings = list(build_loader(cfg, "test"))
    assert len(recordings) == 6 and all(recording.count == 3 for recording in recordings)
    one, other, _ = recordings[0].samples
    assert not same(one, other)
    again = build_dataset(cfg, "test")[0]
    assert all(same(a, b) for a, b in zip(again.samples, recordings[0].samples, strict=True))
    assert next(iter(build_loader(cfg, "val"))).count == 1


def test_shuffled_and_repeated_times_belong_to_other_events(cfg: ConfigNode) -> None:
    found: dict[str, EvalRecording] = {}
    for order in ("normal", "shuffled", "repeated"):
        cfg.TEST.FRAME_ORDER = order
        found[order] = build_dataset(cfg, "test")[0]
    normal, shuffled, repeated = (found[order].samples[1] for order in ("normal", "shuffled", "repeated"))
    rows = {
        name: list(zip(*(sample[key].tolist() for key in "xyp"), strict=True))
        for name, sample in {"normal": normal, "shuffled": shuffled, "repeated": repeated}.items()
    }
    assert rows["shuffled"] == rows["repeated"] != rows["normal"], "also networks that use the order see another one"
    assert sorted(rows["shuffled"]) == sorted(rows["normal"])
    assert torch.equal(normal["t"], shuffled["t"]) and torch.equal(normal["valid"], shuffled["valid"])
    assert repeated["t"].unique().tolist() == [float(normal["t"][12])]


def test_repairs_are_logged_once(
    cfg: ConfigNode, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted((tmp_path / "data").rglob("*.npz"))
    for file in files:
        write_recording(file, 60, 1, x=np.r_[99, np.arange(59) % 16])
    cfg.DVS.NUM_EVENTS = 0
    monkeypatch.setattr(logging.getLogger("slowfast"), "propagate", True)
    batch = epoch(cfg)[0]
    assert batch.clips["x"].shape == (8, 59) and int(batch.clips["x"].max()) == 15 and not batch.failures
    said = [record for record in caplog.records if "dropped events outside of the sensor" in record.getMessage()]
    assert len(set(map(id, said))) == 1  # a record appears twice if two loggers are captured


def test_samples_of_a_repaired_recording(cfg: ConfigNode, tmp_path: Path) -> None:
    """Check that a shuffled file gives the samples of the sorted one."""
    want = build_dataset(cfg, "test")[0]
    path = want.record.path
    columns = dict(np.load(path))
    order = np.random.default_rng(0).permutation(60)
    np.savez(path, **{key: values[order] for key, values in columns.items()})
    for one, other in zip(want.samples, build_dataset(cfg, "test")[0].samples, strict=True):
        assert same(one, other)


def test_unreadable_recordings_are_listed_or_replaced(cfg: ConfigNode, tmp_path: Path) -> None:
    for name in ("a/009.npz", "b/000.npz"):
        write_recording(tmp_path / "data" / name, 0, 0)
    recordings = list(build_loader(cfg, "test"))
    assert [r.count for r in recordings] == [3, 0, 3, 3, 3, 3]
    assert recordings[1].failures[0].reason == "the recording contains no events" and recordings[1].failures[0].lost
    cfg.DATA.MAX_FAILED = 0.1
    failures = [failure for batch in epoch(cfg) for failure in batch.failures]
    assert {failure.name for failure in failures} == {"b/000.npz"}


def test_parts_of_a_batch_and_single_samples() -> None:
    one = {"x": torch.arange(3), "valid": torch.ones(3, dtype=torch.bool)}
    two = {"x": torch.arange(5), "valid": torch.ones(5, dtype=torch.bool)}
    batch = stack_clips([one, two, one])
    assert batch["x"].tolist() == [[0, 1, 2, -1, -1], [0, 1, 2, 3, 4], [0, 1, 2, -1, -1]]
    assert batch["valid"].sum(1).tolist() == [3, 5, 3]
    assert [part["x"].shape for part in split_clips(batch, 2)] == [(2, 5), (1, 5)]


def test_image_of_a_recording(cfg: ConfigNode) -> None:
    recording = build_dataset(cfg, "test")[0]
    picture = recording.preview()
    assert picture.shape == (6, *SENSOR, 3) and picture.dtype == np.uint8 and len(np.unique(picture)) > 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["DVS.SAMPLER", "random"], "DVS.SAMPLER: unknown value 'random'. Choices: random_sample"),
        (["DVS.SCALE", "[2,1]"], "smaller factor must come first"),
        (["MIXUP.ENABLE", True, "MODEL.LOSS_FUNC", "soft_cross_entropy"], "MIXUP.ENABLE is for frames"),
        (["TEST.NUM_SPATIAL_CROPS", 3], "events are not cropped"),
        (["MODEL.MODEL_NAME", "MorphMLP"], "MorphMLP takes clips, but the dataset dvsfolder contains events"),
        (["TRAIN.DATASET", "kinetics"], "Event2Vec takes events, but the dataset kinetics contains clips"),
        (["EVENT2VEC.MASK_RATIO", 0.5], "pre-training, which has no classes"),
        (["DVS.TIME_NORM", "longest"], "DVS.TIME_NORM"),
        (["EVENT2VEC.HEADS", 3], "EVENT2VEC.HEADS .3. must divide"),
    ],
)
def test_impossible_settings(cfg: ConfigNode, settings: list[object], message: str) -> None:
    cfg.merge_from_list(settings)
    with pytest.raises(ConfigError, match=message):
        validate(cfg)


def test_possible_settings(cfg: ConfigNode) -> None:
    validate(cfg)
