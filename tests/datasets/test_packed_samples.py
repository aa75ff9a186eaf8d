"""Shards of images, of folders of frames and of event recordings: the batches of files, and damaged shards."""

from __future__ import annotations

import itertools
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from demo_data.build import build
from demo_data.settings import DemoSettings
from slowfast.cli.main import main
from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import build_loader, eval_dataset, find_dataset
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.dvs.measure import longest_recording
from slowfast.datasets.dvs.recording import Opening
from slowfast.datasets.sample_files import LocalSamples, SampleFiles, ShardMember, find_member
from slowfast.datasets.types import Record
from tests.conftest import tiny_settings
from tests.event_files import SENSOR, event_settings, write_folder

CPU = torch.device("cpu")
KINDS = ("frames", "images", "events", "event_frames")
FRAMES = [f"somesomev1_rgb_{split}_split.txt" for split in ("train", "validation", "test")]
LISTS = [f"{split}_list.txt" for split in ("train", "val", "test")]


class Collection:
    """Samples in files and the same ones in shards.

    Args:
        kind: One of KINDS.
        folder: Folder for both.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.files, self.shards = folder / "files", folder / "shards"
        if kind in ("frames", "images"):
            layout = "something" if kind == "frames" else "imagenet"
            build(self.files, DemoSettings(format=layout, train=16, val=8, test=8, size=32, frames=9), workers=1)
        else:
            write_folder(self.files)
        self.source = self.files / "frames" if kind == "frames" else self.files
        if kind != "frames":
            self._write_lists()
        index = [str(self.files / name) for name in (FRAMES if kind == "frames" else LISTS)]
        options = ["--frames", "{:05d}.jpg"] if kind == "frames" else []
        assert (
            main(["shards", str(self.source), "--out", str(self.shards), "--index", *index, "--size", "1", *options])
            == 0
        )

    def _write_lists(self) -> None:
        read = {
            split: find_dataset(self.cfg(self.files), split).read_index(split) for split in ("train", "val", "test")
        }
        for split, records in read.items():
            text = "".join(f"{record.path.relative_to(self.files)} {record.label}\n" for record in records)
            (self.files / f"{split}_list.txt").write_text(text)

    def cfg(self, data: Path, prefix: Path | str = "") -> ConfigNode:
        """Return the config for samples below `prefix` and their lists in `data`, by default both in one folder."""
        cfg, prefix = get_cfg(), prefix or (self.source if data == self.files else data)
        if self.kind in ("frames", "images"):
            cfg.merge_from_list(tiny_settings(data, self.folder / "out"))
            cfg.TRAIN.DATASET = cfg.TEST.DATASET = "ssv1" if self.kind == "frames" else "imagenet"
            cfg.DATA.RANDOM_FLIP = self.kind == "images"
        else:
            cfg.merge_from_list(event_settings(data, self.folder / "out"))
            cfg.TRAIN.DATASET = cfg.TEST.DATASET = "dvsfolder" if self.kind == "events" else "dvsframes"
            cfg.DVS.TIME_NORM = "dataset"
        cfg.TEST.NUM_ENSEMBLE_VIEWS = 2 if self.kind in ("frames", "events") else 1
        cfg.TEST.NUM_SPATIAL_CROPS, cfg.DATA_LOADER.NUM_WORKERS = 1, 0
        cfg.DATA.PATH_TO_DATA_DIR, cfg.DATA.PATH_PREFIX = str(data), str(prefix)
        return cfg


@pytest.fixture(scope="module", params=KINDS)
def collection(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return Collection(request.param, tmp_path_factory.mktemp(request.param))


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    return torch.equal(one, other)


def same_batches(one: ConfigNode, other: ConfigNode) -> None:
    batches = list(zip(build_loader(one, "train"), build_loader(other, "train"), strict=True))
    assert batches and all(equal(a.clips, b.clips) and equal(a.labels, b.labels) for a, b in batches)
    assert not any(b.failures for _, b in batches)
    first, second = eval_dataset(one, "test"), eval_dataset(other, "test")
    for position in range(len(first.records)):
        views = list(zip(first[position].clips(CPU), second[position].clips(CPU), strict=True))
        assert views and all(equal(a, b) for a, b in views)


def test_batches_equal_those_of_files(collection: Collection) -> None:
    same_batches(collection.cfg(collection.files), collection.cfg(collection.shards))
    if collection.kind == "events":
        read = [
            find_dataset(collection.cfg(at), "train").read_index("train")
            for at in (collection.files, collection.shards)
        ]
        longest = [longest_recording(records, Opening(SENSOR)) for records in read]
        assert longest[0] == longest[1] > 0


def test_a_shard_that_ends_early_is_the_failure_of_its_last_sample(collection: Collection, tmp_path: Path) -> None:
    """The shard of the test samples misses its end and a byte."""
    for file in collection.shards.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    cfg = collection.cfg(tmp_path)
    dataset = eval_dataset(cfg, "test")
    last = max((member_of(record) for record in dataset.records), key=lambda member: (member.shard, member.start))
    shard = Path(last.shard)
    shard.write_bytes(shard.read_bytes()[: last.start + last.size - 1])
    failed = {}
    for position, record in enumerate(dataset.records):
        sample = dataset[position]
        if not sample.count:
            failed[record.path] = sample.failures[0].reason
    assert list(failed) == [Path(str(last))] and "its shard ends early" in failed[Path(str(last))]


def member_of(record: Record) -> ShardMember:
    found = find_member(str(record.path))
    assert found is not None
    return found


def test_other_programs_find_all_files_in_shards(collection: Collection) -> None:
    found = {}
    for shard in collection.shards.glob("*.tar"):
        with tarfile.open(shard) as archive:
            files = [(one.name, archive.extractfile(one)) for one in archive if one.isreg()]
            found |= {name: file.read() for name, file in files if file is not None}
    suffixes = (".jpg", ".JPEG", ".npz")
    sources = [path for path in collection.source.rglob("*.*") if path.suffix in suffixes]
    assert found == {str(path.relative_to(collection.source)): path.read_bytes() for path in sources}


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (["a 2 0", "b 3 1"], [], "00003.jpg: no such file or directory"),
        (["a 2 0", "a.txt 1 1"], [], "not a folder of frames"),
        (["a 2 0", "c 1 1"], [], "no such file or directory"),
        (["a 0"], [], "2 fields. Expected folder frames label"),
        (["a x 0"], [], "number of frames x is not"),
        (["a 2 0"], ["--frames", "x.jpg"], "must contain one plain {} field"),
    ],
)
def test_folders_that_cannot_be_packed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: Sequence[str], options: Sequence[str], message: str
) -> None:
    """A folder with a missing frame is a failure; a broken list or template refuses the command."""
    source, target = tmp_path / "source", tmp_path / "shards"
    for name, number in itertools.product("ab", (1, 2)):
        (source / name).mkdir(parents=True, exist_ok=True)
        (source / name / f"{number:05d}.jpg").write_bytes(b"x" * 700)
    (source / "a.txt").touch()
    (tmp_path / "train.txt").write_text("".join(f"{line}\n" for line in lines))
    words = [str(source), "--out", str(target), "--index", str(tmp_path / "train.txt")]
    status = main(["shards", *words, *(options or ("--frames", "{:05d}.jpg"))])
    if len(lines) == 2:
        assert status == 0 and message in (target / "failed.csv").read_text()
        [line] = (target / "train.txt").read_text().splitlines()
        member = find_member(str(target / line.rsplit(maxsplit=2)[0]))
        assert member is not None and member.name == "a" and line.endswith("/a 2 0")
        stamp = (target / "train-000000.tar").stat().st_mtime_ns
        assert main(["shards", *words, "--frames", "{:05d}.jpg"]) == 0
        assert (target / "train-000000.tar").stat().st_mtime_ns == stamp  # kept
    else:
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert status == 2 and error.startswith("error: ") and message in error


def test_remote_folders_of_frames_need_shards() -> None:
    opened = LocalSamples(lambda record: pytest.fail("opened"), SampleFiles(0))
    with (
        pytest.raises(DecodeError, match="Pack them with slowfast shards --frames"),
        opened(Record(0, Path("s3:/bucket/a"), "a", 0, frames=3)),
    ):
        pass
