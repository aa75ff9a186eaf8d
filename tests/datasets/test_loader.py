"""Loaders: the same batches for any number of workers, unreadable files, workers that die or hang."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets import build_dataset, build_loader
from slowfast.datasets.build import eval_dataset, eval_loader, process_parts, train_dataset, train_loader
from slowfast.datasets.decode import DecodeError
from slowfast.datasets.types import Record, TrainBatch
from slowfast.errors import DataError
from slowfast.utils.distributed import World
from slowfast.utils.worker import WorkerError
from tests.worker_processes import no_workers

pytestmark = pytest.mark.slow


def epoch(cfg: ConfigNode, at: int, world: World | None = None) -> list[TrainBatch]:
    loader = build_loader(cfg, "train", world)
    loader.batches.start_at(at)
    return list(loader)


@pytest.fixture
def augmented(tiny_cfg: ConfigNode) -> ConfigNode:
    tiny_cfg.AUG.ENABLE, tiny_cfg.AUG.NUM_SAMPLE, tiny_cfg.AUG.RE_PROB = True, 2, 1.0
    return tiny_cfg


def test_batches_do_not_depend_on_workers(augmented: ConfigNode) -> None:
    batches = {}
    for workers in (0, 1, 3):
        augmented.DATA_LOADER.NUM_WORKERS = workers
        batches[workers] = epoch(augmented, at=5)
    for workers in (1, 3):
        assert len(batches[workers]) == len(batches[0]) == 2
        for one, other in zip(batches[0], batches[workers], strict=True):
            assert one.names == other.names
            assert torch.equal(one.clips, other.clips) and torch.equal(one.labels, other.labels)
    assert batches[0][0].clips.shape == (16, 4, 32, 32, 3) and batches[0][0].clips.dtype == torch.uint8
    assert not torch.equal(batches[0][0].clips[0], batches[0][0].clips[1]), "both samples of a video are the same"


def test_epochs_and_seeds_differ(augmented: ConfigNode) -> None:
    augmented.DATA_LOADER.NUM_WORKERS = 0
    first, second = epoch(augmented, at=0), epoch(augmented, at=1)
    assert first[0].names != second[0].names
    augmented.RNG_SEED = 1
    assert epoch(augmented, at=0)[0].names != first[0].names


def test_processes_share_the_same_batches(augmented: ConfigNode) -> None:
    augmented.DATA_LOADER.NUM_WORKERS = 0
    whole = epoch(augmented, at=2)
    worlds = [World(rank=rank, size=2) for rank in range(2)]
    parts = [epoch(augmented, at=2, world=world) for world in worlds]
    for step, batch in enumerate(whole):
        for world, part in zip(worlds, parts, strict=True):
            places = [place for places in process_parts(augmented, world) for place in places]
            rows = [2 * place + sample for place in places for sample in range(2)]
            assert torch.equal(part[step].clips, batch.clips[rows])


def test_a_test_video_gives_all_views_once(tiny_cfg: ConfigNode) -> None:
    tiny_cfg.TEST.NUM_ENSEMBLE_VIEWS = 3
    videos = list(build_loader(tiny_cfg, "test"))
    assert [video.record.index for video in videos] == list(range(8))
    assert all(video.frame_index.shape == (3, 4) and len(video.corners) == 3 for video in videos)
    distinct = {tuple(row) for row in videos[0].frame_index.tolist()}
    assert len(distinct) == 3


def test_every_video_belongs_to_one_process(tiny_cfg: ConfigNode) -> None:
    loaders = [build_loader(tiny_cfg, "test", World(rank=rank, size=3)) for rank in range(3)]
    found = [video.record.index for loader in loaders for video in loader]
    assert sorted(found) == list(range(8))


def test_a_broken_training_video_is_replaced_and_listed(tiny_cfg: ConfigNode) -> None:
    tiny_cfg.DATA.MAX_FAILED = 0.5
    batches = {}
    for workers in (0, 2):
        tiny_cfg.DATA_LOADER.NUM_WORKERS = workers
        dataset = train_dataset(tiny_cfg)
        broken = dataset.records[3].name
        _break(dataset, broken)
        loader = train_loader(tiny_cfg, World(), dataset)
        batches[workers] = list(loader)
    for one, other in zip(batches[0], batches[2], strict=True):
        assert one.names == other.names and torch.equal(one.clips, other.clips)
    failures = [failure for batch in batches[0] for failure in batch.failures]
    assert {(failure.name, failure.reason, failure.lost) for failure in failures} == {(broken, "on purpose", True)}
    assert all(broken not in batch.names for batch in batches[0])


def test_a_broken_test_video_is_never_replaced(tiny_cfg: ConfigNode) -> None:
    dataset = eval_dataset(tiny_cfg, "test")
    _break(dataset, dataset.records[3].name)
    videos = list(eval_loader(tiny_cfg, World(), dataset))
    assert [video.record.index for video in videos] == list(range(8))
    assert [video.frames is None for video in videos] == [index == 3 for index in range(8)]
    assert videos[3].failures[0].reason == "on purpose"


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_broken_videos_in_a_row_end_the_run(tiny_cfg: ConfigNode, workers: int) -> None:
    tiny_cfg.DATA_LOADER.NUM_WORKERS = workers
    dataset = train_dataset(tiny_cfg)
    _break(dataset, *(record.name for record in dataset.records))
    with pytest.raises(DataError, match="too many training videos in a row.*on purpose") as caught:
        list(train_loader(tiny_cfg, World(), dataset))
    assert "\n" not in str(caught.value)


def test_fewer_videos_than_a_batch(tiny_cfg: ConfigNode) -> None:
    tiny_cfg.TRAIN.BATCH_SIZE = 32
    with pytest.raises(DataError, match="TRAIN.BATCH_SIZE .32. is more than the 16 samples"):
        build_loader(tiny_cfg, "train")


def _disturb(dataset: object, name: str, disturb: Callable[[], object]) -> None:
    """Do something whenever the sample of that name is opened."""
    opened = dataset.open_sample  # type: ignore[attr-defined]

    def open_sample(record: Record) -> object:
        if record.name == name:
            disturb()
        return opened(record)

    dataset.open_sample = open_sample  # type: ignore[attr-defined]


def _sleep_in_c() -> None:
    """Sleep in a call that holds the interpreter and that no signal but SIGKILL ends."""
    libc = ctypes.PyDLL(None)
    while True:
        libc.sleep(600)


DEATHS = {
    "killed by SIGSEGV": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "killed by SIGBUS": lambda: os.kill(os.getpid(), signal.SIGBUS),
    "killed by SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exited with status 7": lambda: os._exit(7),
}


@pytest.mark.parametrize("how", DEATHS)
@pytest.mark.parametrize("workers", [1, 3])
def test_a_dead_worker_costs_its_file_only(tiny_cfg: ConfigNode, how: str, workers: int) -> None:
    tiny_cfg.DATA_LOADER.NUM_WORKERS = workers
    dataset = eval_dataset(tiny_cfg, "test")
    whole = [video.frames for video in eval_loader(tiny_cfg, World(), dataset)]
    _disturb(dataset, dataset.records[2].name, DEATHS[how])
    with eval_loader(tiny_cfg, World(), dataset) as loader:
        for _ in range(2):  # it is not opened a second time
            videos = list(loader)
            assert [video.record.index for video in videos] == list(range(8))
            assert [video.frames is None for video in videos] == [index == 2 for index in range(8)]
            assert [failure.reason for video in videos for failure in video.failures] == [
                f"the worker reading it was {how}" if "killed" in how else f"the worker reading it {how}"
            ]
            others = [(a, b.frames) for a, b in zip(whole, videos, strict=True) if b.frames is not None]
            assert all(torch.equal(one, other) for one, other in others)
    assert no_workers()


@pytest.mark.parametrize("hang", [_sleep_in_c, lambda: time.sleep(600)], ids=["in C", "in Python"])
def test_a_hung_worker_costs_its_file_only(tiny_cfg: ConfigNode, hang: Callable[[], None]) -> None:
    tiny_cfg.DATA_LOADER.TIMEOUT = 2
    dataset = eval_dataset(tiny_cfg, "test")
    _disturb(dataset, dataset.records[2].name, hang)
    with eval_loader(tiny_cfg, World(), dataset) as loader:
        videos = list(loader)
    assert [video.frames is None for video in videos] == [index == 2 for index in range(8)]
    assert videos[2].failures[0].reason == "reading took longer than 2 s (DATA_LOADER.TIMEOUT)"
    assert no_workers()


def test_without_workers_a_slow_file_is_given_up(tiny_cfg: ConfigNode) -> None:
    tiny_cfg.DATA_LOADER.TIMEOUT, tiny_cfg.DATA_LOADER.NUM_WORKERS = 1, 0
    dataset = eval_dataset(tiny_cfg, "test")
    _disturb(dataset, dataset.records[2].name, lambda: time.sleep(600))
    videos = list(eval_loader(tiny_cfg, World(), dataset))
    assert [video.frames is None for video in videos] == [index == 2 for index in range(8)]
    assert videos[2].failures[0].reason == "reading took longer than 1 s (DATA_LOADER.TIMEOUT)"


def test_batches_do_not_depend_on_where_a_worker_died(augmented: ConfigNode) -> None:
    epochs = {}
    for workers, disturb in ((0, _fail), (1, DEATHS["killed by SIGSEGV"]), (2, DEATHS["killed by SIGKILL"])):
        augmented.DATA_LOADER.NUM_WORKERS = workers
        dataset = train_dataset(augmented)
        _disturb(dataset, dataset.records[5].name, disturb)
        with train_loader(augmented, World(), dataset) as loader:
            batches = []
            for at in (3, 4):
                loader.batches.start_at(at)
                batches += list(loader)
        epochs[workers] = batches
    for workers in (1, 2):
        assert len(epochs[workers]) == len(epochs[0]) == 4
        for one, other in zip(epochs[0], epochs[workers], strict=True):
            assert one.names == other.names and torch.equal(one.clips, other.clips)
            assert [failure.name for failure in one.failures] == [failure.name for failure in other.failures]


def _fail() -> None:
    raise DecodeError("on purpose")


def test_a_killed_worker_that_was_not_to_blame_costs_nothing(tiny_cfg: ConfigNode, tmp_path: Path) -> None:
    dataset = eval_dataset(tiny_cfg, "test")

    def die_once() -> None:
        if not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    _disturb(dataset, dataset.records[2].name, die_once)
    with eval_loader(tiny_cfg, World(), dataset) as loader:
        videos = list(loader)
    assert (tmp_path / "died").exists()
    assert not any(video.failures for video in videos)


ERRORS: list[Exception] = [
    MemoryError(),
    OSError(5, "Input/output error"),
    UnicodeDecodeError("utf-8", b"caf\xe9", 3, 4, "unexpected end of data"),
    ValueError("could not broadcast\ninput array"),
    RecursionError("maximum recursion depth exceeded"),
    cv2.error("a matrix of no size"),
    av.FFmpegError(1, "Invalid data found when processing input"),
]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_any_error_is_the_samples_failure(tiny_cfg: ConfigNode, error: Exception, workers: int) -> None:
    tiny_cfg.DATA_LOADER.NUM_WORKERS = workers

    def fail() -> None:
        raise error

    dataset = eval_dataset(tiny_cfg, "test")
    _disturb(dataset, dataset.records[1].name, fail)
    with eval_loader(tiny_cfg, World(), dataset) as loader:
        videos = list(loader)
    assert [video.frames is None for video in videos] == [index == 1 for index in range(8)]
    reason = videos[1].failures[0].reason
    assert reason and "\n" not in reason
    if isinstance(error, OSError):
        assert reason == "input/output error"
    elif not isinstance(error, (cv2.error, av.FFmpegError)):
        assert reason.startswith(type(error).__name__)
        assert type(error).__name__ in videos[1].failures[0].traceback


def test_more_workers_than_batches_end_with_an_error(tiny_cfg: ConfigNode) -> None:
    tiny_cfg.DATA_LOADER.NUM_WORKERS = 8
    dataset = train_dataset(tiny_cfg)
    with pytest.raises(KeyError), train_loader(tiny_cfg, World(), dataset) as loader:
        for _ in loader:
            raise KeyError("in the main process")
    assert no_workers()


def test_an_error_outside_of_reading_is_raised(tiny_cfg: ConfigNode, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = train_dataset(tiny_cfg)

    def broken(samples: object) -> None:
        raise ZeroDivisionError("in collate")

    monkeypatch.setattr("slowfast.datasets.loader.collate_clips", broken)
    with pytest.raises(WorkerError, match="ZeroDivisionError: in collate"):
        with train_loader(tiny_cfg, World(), dataset) as loader:
            list(loader)
    assert no_workers()


def test_workers_that_die_without_a_file_end_the_run(tiny_cfg: ConfigNode, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = train_dataset(tiny_cfg)
    monkeypatch.setattr("slowfast.datasets.loader.collate_clips", lambda samples: os._exit(3))
    with pytest.raises(WorkerError, match="exited with status 3 while it was not reading a file, 3 times in a row"):
        with train_loader(tiny_cfg, World(), dataset) as loader:
            list(loader)
    assert no_workers()


def test_frame_orders(tiny_cfg: ConfigNode) -> None:
    tiny_cfg.DATA_LOADER.NUM_WORKERS = 0
    rows = {}
    for order in ("normal", "repeated", "shuffled"):
        tiny_cfg.TEST.FRAME_ORDER = order
        rows[order] = [video.frame_index[0].tolist() for video in build_loader(tiny_cfg, "test")]
    assert all(row == sorted(row) for row in rows["normal"])
    assert all(len(set(row)) == 1 for row in rows["repeated"])
    assert any(row != sorted(row) for row in rows["shuffled"])
    assert all(sorted(row) == normal for row, normal in zip(rows["shuffled"], rows["normal"], strict=True))


def _break(dataset: object, *names: str) -> None:
    opened = dataset.open_sample  # type: ignore[attr-defined]

    def open_sample(record: Record) -> object:
        if record.name in names:
            raise DecodeError("on purpose")
        return opened(record)

    dataset.open_sample = open_sample  # type: ignore[attr-defined]


def test_arrays_are_never_shared_between_videos(tiny_cfg: ConfigNode) -> None:
    dataset = eval_dataset(tiny_cfg, "test")
    first = dataset[0].frames.numpy().copy()
    dataset[1]
    np.testing.assert_array_equal(dataset[0].frames.numpy(), first)


def test_the_same_index_on_another_disk(tiny_cfg: ConfigNode, tmp_path: Path) -> None:
    tiny_cfg.DATA.PATH_PREFIX = str(tmp_path)
    with pytest.raises(Exception, match="DATA.PATH_PREFIX"):
        build_dataset(tiny_cfg, "test")


def test_balanced_sampling_repeats_rare_classes_with_other_clips(tiny_cfg: ConfigNode) -> None:
    rare = "\n".join(
        (Path(tiny_cfg.DATA.PATH_TO_DATA_DIR) / "train.csv").read_text().splitlines()[:9]
    )  # 8 classes, 0 twice
    folder = Path(tiny_cfg.OUTPUT_DIR) / "index"
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text(rare.replace(" 1", " 0").replace(" 2", " 0"))  # classes 0 and 3 to 7
    tiny_cfg.DATA.PATH_TO_DATA_DIR, tiny_cfg.DATA.SAMPLING, tiny_cfg.TRAIN.BATCH_SIZE = str(folder), "balanced", 9
    batches = {}
    for workers in (0, 2):
        tiny_cfg.DATA_LOADER.NUM_WORKERS = workers
        (batches[workers],) = epoch(tiny_cfg, at=1)
    one, other = batches[0], batches[2]
    assert one.names == other.names and torch.equal(one.clips, other.clips)
    counts = torch.bincount(one.labels, minlength=8)
    assert counts[[0, 3, 4, 5, 6, 7]].sum() == 9 and counts[[0, 3, 4, 5, 6, 7]].max() == 2
    twice = [name for name in set(one.names) if one.names.count(name) == 2]
    assert twice
    for name in twice:
        first, second = (place for place, found in enumerate(one.names) if found == name)
        assert not torch.equal(one.clips[first], one.clips[second])
