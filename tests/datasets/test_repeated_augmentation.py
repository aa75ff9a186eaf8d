"""AUG.NUM_SAMPLE on images and clips: several augmented copies of each sample in one batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import tiny_settings

from slowfast.config.defaults import get_cfg
from slowfast.datasets import build_loader
from slowfast.demo_data.build import build
from slowfast.demo_data.settings import DemoSettings


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
