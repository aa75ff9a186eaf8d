"""Shards: the same samples as single files, damaged shards, packing and resuming."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slowfast.cli.main import main
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import build_loader, eval_dataset
from slowfast.datasets.clip_dataset import VideoEvalDataset
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.sample_files import BLOCK, SampleFiles, ShardMember, find_member, member_header
from slowfast.errors import IndexFileError

CSV = ("train.csv", "val.csv", "test.csv")


def pack(source: Path, target: Path, *options: str, names: tuple[str, ...] = CSV) -> int:
    return main(
        ["shards", str(source), "--out", str(target), "--index", *(str(source / name) for name in names), *options]
    )


@pytest.fixture(scope="module")
def shards(kinetics_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("shards")
    assert pack(kinetics_folder, target, "--size", "1") == 0
    return target


def use(cfg: ConfigNode, folder: Path | str) -> ConfigNode:
    cfg.DATA.PATH_TO_DATA_DIR = cfg.DATA.PATH_PREFIX = str(folder)
    return cfg


def same_batches(cfg: ConfigNode, one: Path | str, other: Path | str) -> None:
    """Compare an epoch of training batches and the test views of two folders."""
    train = [build_loader(use(cfg.clone(), folder), "train") for folder in (one, other)]
    batches = list(zip(*train, strict=True))
    assert batches
    for a, b in batches:
        assert torch.equal(a.clips, b.clips) and torch.equal(a.labels, b.labels)
    tested = [eval_dataset(use(cfg.clone(), folder), "test") for folder in (one, other)]
    for position in range(len(tested[0].records)):
        first, second = (dataset[position] for dataset in tested)
        assert torch.equal(first.frames, second.frames) and torch.equal(first.frame_index, second.frame_index)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_equal_those_of_files(tiny_cfg: ConfigNode, kinetics_folder: Path, shards: Path, workers: int) -> None:
    tiny_cfg.DATA_LOADER.NUM_WORKERS = workers
    same_batches(tiny_cfg, kinetics_folder, shards)


def test_shards_are_tar_files_that_hold_the_sources(kinetics_folder: Path, shards: Path, tmp_path: Path) -> None:
    for shard in shards.glob("*.tar"):
        subprocess.run(["tar", "-xf", str(shard), "-C", str(tmp_path)], check=True)
    packed = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.mp4")}
    assert packed and packed == {name: (kinetics_folder / name).read_bytes() for name in packed}
    assert (shards / "categories.txt").read_bytes() == (kinetics_folder / "categories.txt").read_bytes()


@pytest.fixture
def first(tiny_cfg: ConfigNode, shards: Path) -> tuple[VideoEvalDataset, ShardMember, bytearray]:
    """The test dataset of shards, the member of its first record, and the shard's bytes."""
    dataset = eval_dataset(use(tiny_cfg, shards), "test")
    member = find_member(str(dataset.records[0].path))
    assert isinstance(dataset, VideoEvalDataset) and member is not None
    return dataset, member, bytearray(Path(member.shard).read_bytes())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("missing", "its shard cannot be read: no such file"),
        ("short", "its shard ends early"),
        ("empty", "its shard ends early"),
        ("other", "its shard has another member at this position"),
        ("zeros", "its shard has another member at this position"),
        ("folder", "its shard cannot be read: is a directory"),
        ("unaligned", "not a valid position of a member"),
        ("huge", "exceed the limit"),
    ],
)
def test_damaged_shards(
    first: tuple[VideoEvalDataset, ShardMember, bytearray], tmp_path: Path, damage: str, reason: str
) -> None:
    _, member, data = first
    shard = tmp_path / "a.tar"
    start, size, name = member.start, member.size, member.name
    match damage:
        case "short":
            shard.write_bytes(data[: member.start + member.size - 1])
        case "empty":
            shard.touch()
        case "zeros":
            data[member.first : member.start] = bytes(BLOCK)
            shard.write_bytes(data)
        case "folder":
            shard.mkdir()
        case "other" | "unaligned" | "huge":
            shard.write_bytes(data)
            name = f"{name}x" if damage == "other" else name
            start += damage == "unaligned"
            size = 2**40 if damage == "huge" else size
    path = Path(str(ShardMember(str(shard), start, size, name)))
    with pytest.raises(DecodeError, match=reason), SampleFiles(2**20).local(path):
        pass


def test_a_sample_of_a_damaged_shard_is_a_failure(
    first: tuple[VideoEvalDataset, ShardMember, bytearray], tmp_path: Path, tiny_cfg: ConfigNode, shards: Path
) -> None:
    _, member, data = first
    (tmp_path / "test.csv").write_bytes((shards / "test.csv").read_bytes())
    (tmp_path / Path(member.shard).name).write_bytes(data[: member.start + member.size])
    dataset = eval_dataset(use(tiny_cfg, tmp_path), "test")
    samples = [dataset[position] for position in range(len(dataset.records))]
    assert samples[0].frames is not None
    assert all(s.frames is None and "its shard ends early" in s.failures[0].reason for s in samples[1:])


def test_index_of_missing_shards(tiny_cfg: ConfigNode, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_bytes((shards / "test.csv").read_bytes())
    with pytest.raises(IndexFileError, match="none of the first"):
        eval_dataset(use(tiny_cfg, tmp_path), "test")
    (tmp_path / "test.csv").write_text("../x.tar@512+1/a.mp4 0\n")
    with pytest.raises(IndexFileError, match="leaves DATA.PATH_PREFIX"):
        eval_dataset(use(tiny_cfg, tmp_path), "test")


NAMES = st.lists(
    st.text(st.characters(blacklist_characters="/\0\n\r", blacklist_categories=("Cs",)), min_size=1, max_size=60),
    min_size=1,
    max_size=4,
).map("/".join)


@settings(max_examples=100, deadline=None)
@given(NAMES, st.binary(max_size=2000), st.integers(0, 2**33))
@example(f"{99 * 'a'}/b", b"", 0)  # cut after the slash
def test_members_with_any_name(name: str, data: bytes, modified: int) -> None:
    shard = b"x" * BLOCK + member_header(name, len(data), modified) + data
    member = ShardMember("s.tar", len(shard) - len(data), len(data), name)
    assert find_member(str(member)) == member
    assert bytes(member.contents(shard[member.first :])) == data


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "a b").mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"a b/ä {'long ' * 30 if i == 3 else ''}{i}.bin" for i in range(8)]
    for name in names:
        (folder / name).write_bytes(rng.bytes(400_000))
    (folder / "train.csv").write_text("".join(f"{name} {i % 2}\n" for i, name in enumerate([*names, names[0], "gone"])))
    (folder / "val.csv").write_text(f"{names[1]} 1\n")
    return folder


def test_packing_and_resuming(collection: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = collection / "shards"

    def run() -> dict[str, bytes]:
        assert pack(collection, target, "--size", "1", names=("train.csv", "val.csv")) == 0
        return files(target)

    found = run()
    assert sorted(found) == ["failed.csv", *(f"train-{i:06d}.tar" for i in range(4)), "train.csv", "val.csv"]
    assert found["failed.csv"].decode().splitlines()[1].startswith("gone,")
    for line in (found["train.csv"] + found["val.csv"]).decode().splitlines():
        member = find_member(str(target / line.rpartition(" ")[0]))
        assert member is not None
        with SampleFiles(2**20).local(Path(str(member))) as path:
            assert path.read_bytes() == (collection / member.name).read_bytes()
    assert found["train.csv"].decode().splitlines()[0].rpartition(" ")[0] in found["train.csv"].decode().splitlines()[8]
    assert found["val.csv"].startswith(b"train-000000.tar@")
    # Damaged, leftover and changed shards: the result equals that of one uninterrupted run.
    (target / "train-000001.tar").write_bytes(b"")
    (target / "train-000004.tar").write_bytes(b"of a longer run")
    capsys.readouterr()
    assert run() == found
    assert "4 (3 from earlier runs)" in capsys.readouterr().out
    source = next(path for path in collection.rglob("*0.bin"))
    source.write_bytes(bytes(400_000))
    os.utime(source, (1, 1))
    changed = run()
    assert changed["train-000000.tar"] != found["train-000000.tar"] and changed["train.csv"] == found["train.csv"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "{tmp}/out"], "--index is missing"),
        (["--out", "{source}", "--index", "{source}/train.csv"], "would be overwritten|is the SOURCE"),
        (["--out", "{tmp}/out", "--index", "{tmp}/none.csv"], "none.csv"),
        (["--out", "{tmp}/out", "--index", "{source}/empty.csv"], "is empty"),
        (["--out", "{tmp}/out", "--index", "{source}/gone.csv"], "none of 1 files could be read"),
        (["--index", "{source}/train.csv"], "--out"),
    ],
)
def test_mistakes(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    (collection / "empty.csv").touch()
    (collection / "gone.csv").write_text("gone 0\n")
    words = [option.format(tmp=tmp_path, source=collection) for option in options]
    assert main(["shards", str(collection), *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert any(part in error for part in message.split("|"))
