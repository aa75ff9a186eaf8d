"""Exported safetensors files: bit-identical weights, required metadata, and no executable code."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, tiny_settings
from torch import nn

from slowfast.cli.main import main
from slowfast.cli.setup import load_config
from slowfast.engine.state import load_start_weights, load_test_checkpoint
from slowfast.engine.test import network_to_test
from slowfast.errors import CheckpointError, DamagedFileError
from slowfast.inference import export as exporting
from slowfast.models import build_model
from slowfast.models.weights import read_file, read_weights
from slowfast.utils.checkpoint_files.read import is_safetensors, read_metadata, write_safetensors

EMPTY = str(ROOT / "tests" / "empty.yaml")
pytest.importorskip("safetensors", reason="needs the extra safetensors")


def test_exported_weights_load_again_bit_by_bit(
    kinetics_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*map(str, tiny_settings(kinetics_folder, tmp_path / "out")), "DATA.REVERSE_INPUT_CHANNEL", "True"]
    out = tmp_path / "net.safetensors"
    assert main(["export", "--cfg", EMPTY, "--out", str(out), *settings]) == 0
    assert "bit by bit those of the model" in capsys.readouterr().out
    expected = network_to_test(load_config(EMPTY, [*settings, "TRAIN.ENABLE", False]), torch.device("cpu"))
    cfg = load_config(EMPTY, [*settings, "TRAIN.ENABLE", False, "TEST.CHECKPOINT_FILE_PATH", str(out)])
    model = build_model(cfg)
    load_test_checkpoint(cfg, model)
    found = model.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.state_dict().items())

    metadata = read_metadata(out)
    assert (metadata["format"], metadata["channel_order"], metadata["model"]) == ("pt", "BGR", cfg.MODEL.MODEL_NAME)
    assert json.loads(metadata["mean"]) == list(cfg.DATA.MEAN) and len(metadata["config_digest"]) == 16
    assert json.loads(metadata["class_names"]) == (kinetics_folder / "categories.txt").read_text().split()[::2]


def test_training_starts_from_them(kinetics_folder: Path, tmp_path: Path) -> None:
    cfg = load_config(EMPTY, tiny_settings(kinetics_folder, tmp_path / "out"))
    trained, path = build_model(cfg), tmp_path / "net.safetensors"
    write_safetensors(path, trained.state_dict(), {})
    for key in ("TRAIN.CHECKPOINT_FILE_PATH", "MORPH.PRETRAIN_PATH"):
        given = load_config(EMPTY, [*tiny_settings(kinetics_folder, tmp_path / "out"), key, str(path)])
        model = build_model(given)
        load_start_weights(given, model, None)  # type: ignore[arg-type]  # no state is restored
        found = model.state_dict()
        assert all(torch.equal(value, found[name]) for name, value in trained.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8])
def test_every_type_comes_back(dtype: torch.dtype, tmp_path: Path) -> None:
    values = torch.tensor([[0, 1, -0.0], [float("nan") if dtype.is_floating_point else 3, 5, 7]]).to(dtype)
    state = {"whole": values, "part": values[:, 1:], "turned": values.t(), "none": values[:0], "one": values[0, 1]}
    write_safetensors(tmp_path / "x.safetensors", state, {})
    found = read_file(tmp_path / "x.safetensors", "pytorch")
    assert found.keys() == state.keys()
    assert all(exporting._same_bits(state[name], found[name]) for name in state)


def written(folder: Path) -> Path:
    path = folder / "net.safetensors"
    write_safetensors(path, nn.Linear(3, 2).state_dict(), {})
    return path


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    model, path = nn.Linear(3, 2), written(tmp_path).rename(tmp_path / "weights.pth")
    assert read_weights(path, "pytorch", model).keys() == model.state_dict().keys()
    with pytest.raises(CheckpointError, match="as Paddle weights: it is a safetensors file .CHECKPOINT_TYPE pytorch"):
        read_file(path, "paddle")
    assert not is_safetensors(b"\x80\x02}q\x00.") and not is_safetensors(b"") and not is_safetensors(b"\xff" * 8 + b"{")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = written(tmp_path).read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    for damaged in (
        whole[:-1],
        whole + b"x",
        whole[: 8 + size],
        whole[:20],
        struct.pack("<Q", size + 1) + whole[8:],
        whole.replace(b'"F32"', b'"F64"', 1),
        whole.replace(b'"bias"', b'"bi\xff\xff"', 1),
    ):
        path = tmp_path / "damaged.safetensors"
        path.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match="damaged.safetensors cannot be read as safetensors") as caught:
            read_file(path, "pytorch")
        assert "\n" not in str(caught.value) and "Copy or download it again" in str(caught.value)


def test_files_with_other_weights_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*map(str, tiny_settings(tmp_path, tmp_path / "out"))]
    monkeypatch.setattr(exporting, "read_torch_file", lambda path: {"x": torch.zeros(1)})
    assert main(["export", "--cfg", EMPTY, "--out", str(tmp_path / "net.safetensors"), *settings]) == 1
    assert "tensors of the exported file differ" in capsys.readouterr().err
    assert not list(tmp_path.glob("*net.safetensors"))


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(CheckpointError, match=r'net.safetensors: .*pip install "slowfast\[safetensors\]"'):
        read_file(path, "pytorch")
    settings = [*map(str, tiny_settings(tmp_path, tmp_path / "out"))]
    assert main(["export", "--cfg", EMPTY, "--out", str(tmp_path / "new.safetensors"), *settings]) == 2
    error = capsys.readouterr().err
    assert 'pip install "slowfast[safetensors]"' in error and error.count("\n") == 1
