"""Features: the inputs of the head, per view or averaged, as files; unreadable samples have no row."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, tiny_settings

from slowfast.cli.main import main
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, eval_dataset
from slowfast.engine.forward import ClipForward
from slowfast.engine.test import network_to_test
from slowfast.inference.features import FeatureExtractor
from tests.models.tiny_networks import FORMS, inputs, scramble, tiny

EMPTY = str(ROOT / "tests" / "empty.yaml")
CPU = torch.device("cpu")
WITH_PARTS = [name for name in sorted(FORMS) if hasattr(tiny(name), "classify")]


def extract(data: Path, output: Path, *words: object) -> int:
    options = [str(word) for word in words if not isinstance(word, list)]
    return main(["features", "--cfg", EMPTY, *options, *map(str, tiny_settings(data, output))])


@pytest.mark.parametrize("name", WITH_PARTS)
def test_the_head_makes_the_logits_of_the_features(name: str) -> None:
    model, x = scramble(tiny(name)).eval(), inputs(name, 2)
    with torch.no_grad():
        features = FeatureExtractor(model)(x)
        torch.testing.assert_close(model.classify(features), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in FORMS if name.endswith("framewise")])
def test_features_of_a_clip_are_the_mean_over_its_frames(name: str) -> None:
    model, x = scramble(tiny(name)).eval(), inputs(name, 2)
    with torch.no_grad():
        features = FeatureExtractor(model)(x)
        frames = torch.stack([FeatureExtractor(model.image)(x[:, :, t]) for t in range(x.shape[2])])
    torch.testing.assert_close(features, frames.mean(0), rtol=1e-4, atol=1e-5)


def test_rows_are_those_of_a_plain_loop_over_the_views(tiny_cfg: ConfigNode, kinetics_folder: Path) -> None:
    output = Path(tiny_cfg.OUTPUT_DIR)
    assert extract(kinetics_folder, output, "--views", "all") == 0
    assert extract(kinetics_folder, output, "--out", output / "mean.npz") == 0
    rows = np.load(output / "features_test.npz")
    assert {name: (rows[name].dtype.kind, rows[name].shape) for name in rows.files} == {
        "path": ("U", (48,)),
        "label": ("i", (48,)),
        "feature": ("f", (48, 16)),
        "view": ("i", (48,)),
        "crop": ("i", (48,)),
    }
    assert rows["view"][:6].tolist() == [0, 0, 0, 1, 1, 1] and rows["crop"][:6].tolist() == [0, 1, 2, 0, 1, 2]
    model, dataset = FeatureExtractor(network_to_test(tiny_cfg, CPU)).eval(), eval_dataset(tiny_cfg, TEST)
    forward = ClipForward.from_config(tiny_cfg, CPU, TEST)
    with torch.no_grad():
        plain = torch.cat([model(forward.prepare(clip[None])) for clip in dataset[3].clips(CPU)])
    torch.testing.assert_close(torch.from_numpy(rows["feature"][18:24]), plain, rtol=1e-4, atol=1e-5)
    mean = np.load(output / "mean.npz")
    assert mean["path"].tolist() == [record.name for record in dataset.records]
    assert mean["label"].tolist() == [record.label for record in dataset.records]
    np.testing.assert_allclose(mean["feature"], rows["feature"].reshape(8, 6, 16).mean(1), rtol=1e-4, atol=1e-6)


def test_what_cannot_be_read_has_no_row(kinetics_folder: Path, tmp_path: Path) -> None:
    lines = (kinetics_folder / "val.csv").read_text().splitlines()[:2]
    prefix = f"DATA.PATH_PREFIX={kinetics_folder}"
    (tmp_path / "val.csv").write_text("\n".join([lines[0], "gone.mp4 1", lines[1]]) + "\n")
    words = ["--cfg", EMPTY, "--split", "val", *map(str, tiny_settings(tmp_path, tmp_path / "out")), prefix]
    assert main(["features", *words]) == 0
    rows = np.load(tmp_path / "out" / "features_val.npz")
    assert rows["path"].tolist() == [line.rsplit(" ", 1)[0] for line in lines]
    with (tmp_path / "out" / "features_val_failed.csv").open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["gone.mp4"]


def test_parquet_holds_the_same(kinetics_folder: Path, tmp_path: Path) -> None:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        pytest.skip(f"pyarrow, of the extra parquet, is not installed: {error}")
    for name in ("a.npz", "a.parquet"):
        assert extract(kinetics_folder, tmp_path / "out", "--out", tmp_path / name, "--split", "train") == 0
    arrays, table = np.load(tmp_path / "a.npz"), parquet.read_table(tmp_path / "a.parquet").to_pydict()
    assert table["path"] == arrays["path"].tolist() and table["label"] == arrays["label"].tolist()
    assert np.array_equal(np.array(table["feature"], np.float32), arrays["feature"]) and len(table["path"]) == 16


def test_mistakes_are_found_before_the_work(
    kinetics_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_pyarrow(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("slowfast.utils.imports.import_module", without_pyarrow)
    for words, part in (
        (("--out", tmp_path / "a.csv"), "must end in .npz or .parquet"),
        (("--out", tmp_path / "a.parquet"), 'pip install "slowfast[parquet]"'),
        (("--split", "best"), "--split"),
    ):
        assert extract(kinetics_folder, tmp_path / "out", *words) == 2
        err = capsys.readouterr().err
        assert part in err and err.count("\n") == 1
    assert extract(tmp_path, tmp_path / "out") == 2
    assert "test.csv does not exist" in capsys.readouterr().err
