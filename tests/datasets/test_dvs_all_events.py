"""Epochs that cover all events of each recording (DVS.ALL_EVENTS)."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from event_files import event_settings, write_folder, write_recording
from hypothesis import given
from hypothesis import strategies as st

from slowfast.cli.validate_components import validate
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.datasets import build_loader
from slowfast.datasets.dvs.sample import random_part
from slowfast.datasets.types import TrainBatch
from slowfast.errors import ConfigError

EVENTS = 24  # per sample, as in `event_settings`
COUNT = 60  # events of most recordings: 3 samples


@pytest.fixture
def cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigNode:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_folder(tmp_path / "data", n=COUNT)
    cfg = get_cfg()
    cfg.merge_from_list(event_settings(tmp_path / "data", tmp_path / "out"))
    cfg.DVS.ALL_EVENTS, cfg.DVS.TIME_NORM, cfg.TRAIN.BATCH_SIZE = True, "none", 4
    return cfg


def epoch(cfg: ConfigNode, at: int = 0) -> list[TrainBatch]:
    with build_loader(cfg, "train") as loader:
        loader.batches.start_at(at)
        return list(loader)


def samples_by_recording(batches: list[TrainBatch]) -> dict[str, list[torch.Tensor]]:
    """Return the (x, y, p) of the valid events of all samples of each recording."""
    found = defaultdict(list)
    for batch in batches:
        columns = torch.stack([batch.clips[key] for key in "xyp"], -1)
        for name, rows, valid in zip(batch.names, columns, batch.clips["valid"], strict=True):
            found[name].append(rows[valid])
    return found


@given(st.integers(2, 300), st.data())
def test_parts_divide_the_events(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n - 1))
    parts = [random_part(n, k, np.random.default_rng(n), part) for part in range(-(-n // k))]
    assert all(len(part) == k and (np.diff(part) > 0).all() for part in parts)
    times = Counter(np.concatenate(parts).tolist())
    assert sorted(times) == list(range(n)) and sum(times.values()) == k * len(parts)
    assert set(times.values()) <= {1, 2} and sum(extra == 2 for extra in times.values()) == k * len(parts) - n


def test_an_epoch_covers_all_events(cfg: ConfigNode, tmp_path: Path) -> None:
    write_recording(tmp_path / "data" / "a" / "000.npz", 10, 0)  # shorter than a sample
    write_recording(tmp_path / "data" / "a" / "001.npz", 240, 1)
    found = samples_by_recording(epoch(cfg))
    assert sum(map(len, found.values())) == 1 + 10 + 22 * 3 - 1, "an incomplete batch of one sample is dropped"
    assert len(found["a/000.npz"]) == 1 and len(found["a/000.npz"][0]) == 10
    for name, number in {"a/001.npz": 10, "b/003.npz": 3}.items():
        recording = np.load(tmp_path / "data" / name)
        want = np.stack([recording[key] for key in "xyp"], 1)
        assert len(found[name]) == number and all(len(sample) == EVENTS for sample in found[name])
        assert {tuple(row) for row in want.tolist()} == {tuple(row) for row in torch.cat(found[name]).tolist()}


def test_epochs_divide_differently_and_workers_do_not_matter(cfg: ConfigNode) -> None:
    first, again = epoch(cfg, at=1), epoch(cfg, at=1)
    other = epoch(cfg, at=2)
    cfg.DATA_LOADER.NUM_WORKERS = 2
    for one, same in zip(first, epoch(cfg, at=1), strict=True):
        assert one.names == same.names and all(torch.equal(one.clips[key], same.clips[key]) for key in one.clips)
    assert all(torch.equal(a.clips["x"], b.clips["x"]) for a, b in zip(first, again, strict=True))
    one, new = samples_by_recording(first)["b/003.npz"], samples_by_recording(other)["b/003.npz"]
    assert not any(torch.equal(a, b) for a in one for b in new)


def test_unreadable_recordings_count_once_and_are_replaced(cfg: ConfigNode, tmp_path: Path) -> None:
    (tmp_path / "data" / "b" / "002.npz").write_bytes(b"broken")
    batches = epoch(cfg)
    assert sum(len(batch.names) for batch in batches) // 4 == (23 * 3 + 1) // 4
    failed = [failure.name for batch in batches for failure in batch.failures]
    assert failed and set(failed) == {"b/002.npz"}


@pytest.mark.parametrize(("key", "value"), [("CLUSTERS", True), ("NUM_EVENTS", 0)])
def test_samples_that_contain_all_events_are_an_error(cfg: ConfigNode, key: str, value: object) -> None:
    cfg.DVS[key] = value
    with pytest.raises(ConfigError, match=f"DVS.ALL_EVENTS: with DVS.{key} {value}"):
        validate(cfg)
