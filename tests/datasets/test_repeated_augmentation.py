"""Repeated augmentation: copies of each sample in one larger batch (AUG.NUM_SAMPLE) or in the sampler."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import tiny_settings

from demo_data.build import build
from demo_data.settings import DemoSettings
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.datasets import build_loader
from slowfast.datasets.build import process_parts, train_dataset, train_loader
from slowfast.datasets.types import TrainBatch
from slowfast.utils.distributed import World


@pytest.mark.parametrize("dataset", ["imagenet", "kinetics"])
def test_a_batch_holds_copies_of_each_sample(dataset: str, tmp_path: Path) -> None:
    build(tmp_path / "data", DemoSettings(format=dataset, train=8, val=8, test=8, size=32, frames=12), workers=1)
    cfg = get_cfg()
    cfg.merge_from_list(tiny_settings(tmp_path / "data", tmp_path / "out"))
    cfg.merge_from_list(["TRAIN.DATASET", dataset, "TRAIN.BATCH_SIZE", 4, "DATA_LOADER.NUM_WORKERS", 0])
    cfg.merge_from_list(["AUG.ENABLE", True, "AUG.NUM_SAMPLE", 3, "MODEL.MODEL_NAME", "ConvMLP"])
    batches = list(build_loader(cfg, "train"))
    assert len(batches) == 2 and len({name for batch in batches for name in batch.names}) == 8
    frames = 1 if dataset == "imagenet" else 4
    for batch in batches:
        assert batch.clips.shape == (12, frames, 32, 32, 3)
        assert batch.labels.tolist() == [label for label in batch.labels[::3].tolist() for _ in range(3)]
        for copies in batch.clips.split(3):
            assert not any(torch.equal(copies[i], copies[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


IMAGES, REPEATED, BATCH = 14, 3, 6


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("images")
    build(place, DemoSettings(format="imagenet", train=IMAGES, val=1, test=1, size=32), workers=1)
    return place


@pytest.fixture
def repeated(images: Path, tmp_path: Path) -> ConfigNode:
    """Every image three times in an epoch of two batches of six."""
    cfg = get_cfg()
    cfg.merge_from_list(tiny_settings(images, tmp_path))
    cfg.merge_from_list(["TRAIN.DATASET", "imagenet", "TRAIN.BATCH_SIZE", BATCH, "MODEL.MODEL_NAME", "EAT"])
    cfg.merge_from_list(["AUG.ENABLE", True, "AUG.NUM_SAMPLE", 1, "AUG.REPEATED", REPEATED, "DATA.MAX_FAILED", 0.2])
    cfg.merge_from_list(["DATA_LOADER.NUM_WORKERS", 0])
    return cfg


def epoch(cfg: ConfigNode, number: int, world: World | None = None) -> list[TrainBatch]:
    loader = build_loader(cfg, "train", world)
    loader.batches.start_at(number)
    return list(loader)


@pytest.mark.parametrize("sampling", ["uniform", "balanced"])
def test_an_epoch_sees_a_third_of_the_images_three_times_each(repeated: ConfigNode, sampling: str) -> None:
    repeated.DATA.SAMPLING = sampling
    batches = epoch(repeated, 0)
    assert [batch.clips.shape for batch in batches] == [(BATCH, 1, 32, 32, 3)] * (IMAGES // BATCH)
    names = [name for batch in batches for name in batch.names]
    assert all(len(set(names[i : i + REPEATED])) == 1 for i in range(0, len(names), REPEATED))
    if sampling == "uniform":
        assert len(set(names)) == len(names) // REPEATED
    clips = torch.cat([batch.clips for batch in batches])
    assert len({clip.numpy().tobytes() for clip in clips}) == len(clips)  # all different
    seen = {name for number in range(12) for batch in epoch(repeated, number) for name in batch.names}
    assert len(seen) == IMAGES


@pytest.mark.parametrize("size", [1, 2, 3, 6])
@pytest.mark.parametrize("workers", [0, 2])
def test_copies_are_in_different_processes_of_the_same_batch(repeated: ConfigNode, size: int, workers: int) -> None:
    whole = epoch(repeated, 4)
    repeated.DATA_LOADER.NUM_WORKERS = workers
    worlds = [World(rank=rank, size=size) for rank in range(size)]
    parts = [epoch(repeated, 4, world) for world in worlds]
    for step, batch in enumerate(whole):
        holders: dict[str, set[int]] = {}
        for world, part in zip(worlds, parts, strict=True):
            places = sum(process_parts(repeated, world), [])
            assert torch.equal(part[step].clips, batch.clips[places])
            for name in part[step].names:
                holders.setdefault(name, set()).add(world.rank)
        assert len(holders) == BATCH // REPEATED
        assert all(len(ranks) == min(size, REPEATED) for ranks in holders.values())


def test_accumulation_leaves_copies_in_different_processes(repeated: ConfigNode) -> None:
    repeated.TRAIN.ACCUMULATION_STEPS = 2
    ranks = {}
    for rank in range(3):
        for places in process_parts(repeated, World(rank=rank, size=3)):
            ranks |= dict.fromkeys(places, rank)
    assert sorted(ranks) == list(range(BATCH))
    assert {ranks[0], ranks[1], ranks[2]} == {ranks[3], ranks[4], ranks[5]} == {0, 1, 2}


def test_copies_of_an_unreadable_image_are_replaced_by_different_ones(repeated: ConfigNode) -> None:
    dataset = train_dataset(repeated)
    first = epoch(repeated, 0)[0].names[0]
    place = next(place for place, record in enumerate(dataset.records) if record.name == first)
    dataset.unreadable[place] = "on purpose"
    batch = next(iter(train_loader(repeated, World(), dataset)))
    assert first not in batch.names and {failure.name for failure in batch.failures} == {first}
    assert not any(torch.equal(batch.clips[i], batch.clips[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
