"""Input files behind a registered iopath handler, text that is not UTF-8, and folders of another spelling."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from conftest import tiny_settings
from hypothesis import given
from hypothesis import strategies as st
from iopath.common.file_io import PathHandler, PathManagerFactory

from slowfast.cli.setup import load_config
from slowfast.config.defaults import get_cfg
from slowfast.datasets.build import build_dataset
from slowfast.engine.state import load_test_checkpoint
from slowfast.errors import CheckpointError, ConfigError
from slowfast.models import build_model
from slowfast.utils import paths
from slowfast.utils.paths import (
    UnreadableTextError,
    file_in_sibling_folder,
    local_path,
    path_manager,
    read_text_bytes,
    read_text_file,
    why_not_regular,
)
from slowfast.utils.remote.address import FetchError


class Store(PathHandler):
    """``store://`` addresses, fetched from one folder into another."""

    def __init__(self, remote: Path, cache: Path) -> None:
        super().__init__()
        self.remote, self.cache, self.fetched = remote, cache, 0

    def _get_supported_prefixes(self) -> list[str]:
        return ["store://"]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        name = path.removeprefix("store://")
        target = self.cache / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.remote / name, target)
            self.fetched += 1
        return str(target)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    handler = Store(tmp_path / "remote", tmp_path / "cache")
    handler.remote.mkdir()
    path_manager().register_handler(handler)
    yield handler
    PathManagerFactory.remove("slowfast")
    path_manager.cache_clear()


def test_local_paths_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("a/b.csv", "/a//b", "a:b", "~/x", "", "a\0b", "C:/x"):
        assert local_path(path) == Path(path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store:").mkdir()
    (tmp_path / "store:" / "x").write_text("here")
    assert local_path("store:/x") == Path("store:/x")  # an existing file, whatever its name


def test_addresses_without_a_handler_do_not_exist() -> None:
    assert why_not_regular("unknown://bucket/weights.pyth") == "does not exist"
    with pytest.raises(UnreadableTextError, match="does not exist"):
        read_text_file("unknown://bucket/train.csv", 100)


@pytest.mark.parametrize("as_path", [str, Path])
def test_text_is_fetched_once_and_checked_like_a_local_file(store: Store, as_path: type) -> None:
    (store.remote / "a").mkdir()
    (store.remote / "a" / "train.csv").write_text("x.mp4 0\n")
    address = as_path("store://a/train.csv")
    assert why_not_regular(address) == ""
    assert read_text_file(address, 100) == "x.mp4 0\n"
    assert store.fetched == 1
    with pytest.raises(UnreadableTextError, match="larger than"):
        read_text_file(address, 4)


def test_what_cannot_be_fetched_is_reported(store: Store) -> None:
    assert why_not_regular("store://none.pyth").startswith("cannot be fetched: ")
    with pytest.raises(UnreadableTextError, match=r"cannot be fetched: .*No such file"):
        read_text_file("store://none.csv", 100)
    with pytest.raises(FetchError):
        local_path("store://none.csv")


def test_config_index_and_weights_of_a_run(store: Store, kinetics_folder: Path, tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(tiny_settings(kinetics_folder, tmp_path / "out"))
    model = build_model(cfg)
    torch.save({"model_state": model.state_dict()}, store.remote / "weights.pyth")
    (store.remote / "run.yaml").write_text(cfg.dump())
    for name in ("train.csv", "val.csv", "test.csv"):
        shutil.copy(kinetics_folder / name, store.remote / name)
    overrides = ["TEST.CHECKPOINT_FILE_PATH", "store://weights.pyth", "DATA.PATH_TO_DATA_DIR", "store://"]
    overrides += ["TRAIN.ENABLE", False, "OUTPUT_DIR", tmp_path / "out"]
    cfg = load_config("store://run.yaml", overrides)
    again = build_model(cfg)
    load_test_checkpoint(cfg, again)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    assert len(build_dataset(cfg, "test")) == 8
    with pytest.raises(ConfigError, match=r"CHECKPOINT_FILE_PATH: .*none.pyth cannot be fetched"):
        load_config("store://run.yaml", [*overrides, "TEST.CHECKPOINT_FILE_PATH", "store://none.pyth"])
    (store.remote / "damaged.pyth").write_bytes(b"PK")
    cfg.defrost()
    cfg.TEST.CHECKPOINT_FILE_PATH = "store://damaged.pyth"
    with pytest.raises(CheckpointError, match=r"damaged.pyth cannot be read"):
        load_test_checkpoint(cfg, again)


@given(st.lists(st.sampled_from([b"a", b"\n", "é".encode(), "日".encode(), "😀".encode(), b"\xff", b"\xe6", b"\x97"])))
def test_text_is_checked_in_pieces(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    file = Path(tmp_path_factory.getbasetemp()) / "pieces.txt"
    file.write_bytes(b"".join(parts))
    try:
        expected: object = file.read_bytes().decode() and file.read_bytes()
    except UnicodeDecodeError as error:
        expected = file.read_bytes()[: error.start].count(b"\n") + 1
    with mock.patch.object(paths, "_DECODED", 5):
        try:
            found: object = read_text_bytes(file, 100)
        except UnreadableTextError as error:
            found = error.line
    assert found == (expected or b"")


@pytest.mark.parametrize(
    ("wanted", "there", "found"),
    [
        ("sth-v1", ["sthv1", "sthv2"], "sthv1"),
        ("sthv2", ["sth-v1", "sth-v2", "SSV2"], "sth-v2"),
        ("K400", ["k400", "k600"], "k400"),
        ("kinetcs", ["kinetics"], "kinetics"),
        ("sth-v1", ["k400"], None),
        ("sth-v1", [], None),
    ],
)
def test_a_folder_of_another_spelling_is_found(
    wanted: str, there: list[str], found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in there:
        (tmp_path / "lists" / name).mkdir(parents=True)
        (tmp_path / "lists" / name / "train.txt").touch()
    (tmp_path / "lists" / "sth_v1").mkdir(parents=True, exist_ok=True)  # without the file
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path / "lists", Path("lists")):
        expected = None if found is None else root / found / "train.txt"
        assert file_in_sibling_folder(root / wanted / "train.txt") == expected
    monkeypatch.chdir(tmp_path / "lists")
    assert file_in_sibling_folder(Path(wanted) / "train.txt") == (None if found is None else Path(found) / "train.txt")


@pytest.mark.parametrize(
    "path", ["train.txt", "/train.txt", "no/such/place/train.txt", "a" * 5000 + "/b/c", "x\0y/z/t"]
)
def test_no_folder_is_found_beside_impossible_ones(path: str) -> None:
    assert file_in_sibling_folder(Path(path)) is None
