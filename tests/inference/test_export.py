"""Exported networks: same logits for any batch, plain operators; a file that differs is not kept."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, tiny_settings
from torch import nn

from slowfast.cli.main import main
from slowfast.errors import UserError
from slowfast.inference import export_formats
from slowfast.inference.export import export
from slowfast.inference.export_check import TOLERANCE, Comparison, ExportDiffers, compare, random_batches
from slowfast.inference.export_formats import BATCHES, export_graph, foreign_operators
from slowfast.utils.private_ops import FUSED_LINEAR
from slowfast.utils.text_files import from_json
from tests.models.tiny_networks import FORMS, inputs, scramble, tiny

pytestmark = pytest.mark.slow

EMPTY = str(ROOT / "tests" / "empty.yaml")
ALIASES = {"MorphMLP_32"}  # the same network under another name
PICTURES = [name for name in sorted(FORMS) if isinstance(inputs(name, 1), torch.Tensor) and name not in ALIASES]
FAST = [
    "MODEL.MODEL_NAME",
    "evMLP",
    "MODEL.FRAMEWISE",
    "logits",
    "EVMLP.PATCH_SIZES",
    "[4,8]",
    "EVMLP.EMBED_DIMS",
    "[8,8]",
]
FAST += ["EVMLP.LAYERS", "[1,1]", "EVMLP.MLP_RATIOS", "[1,1]", "EVMLP.DROPOUT_RATES", "[0,0]"]


def require_onnx() -> None:
    for package in export_formats.PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError as error:
            pytest.skip(f"{package}, of the extra onnx, is not installed, so no ONNX file is checked: {error}")


def small(name: str) -> nn.Module:
    """A network of few blocks, since tracing time grows with their number."""
    deep = {"MORPH__LAYERS": [1, 1, 1, 1], "EAT__LAYERS": 1, "EAT__CLASS_LAYERS": 1}
    return scramble(tiny(name, **deep)).eval()


@pytest.mark.parametrize("name", PICTURES)
def test_every_network_exports(name: str, tmp_path: Path) -> None:
    model, shape = small(name), inputs(name, 1).shape[1:]
    exported = export(model, shape, tmp_path / "net.pt2")
    assert exported.comparison.difference <= TOLERANCE
    assert not exported.graph.fixed_batch and exported.graph.batches == BATCHES
    assert not foreign_operators(exported.graph.program)
    graph, x = exported.graph.program.module(), inputs(name, 5)
    torch.testing.assert_close(graph(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.extensive
def test_onnx(tmp_path: Path) -> None:
    require_onnx()
    model, shape = small("MorphMLP"), inputs("MorphMLP", 1).shape[1:]
    exported = export(model, shape, tmp_path / "net.onnx")
    assert exported.comparison.difference <= TOLERANCE and not exported.graph.fixed_batch
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def settings_of(folder: Path) -> list[str]:
    return [*map(str, tiny_settings(folder, folder / "out")), *FAST]


class Counting(nn.Module):
    """Asks for the batch as a plain number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(len(x), -1)


class Fused(nn.Module):
    """Calls an operator that only PyTorch on CPUs has."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return FUSED_LINEAR(x, torch.ones(4, x.shape[-1]), None, "none", [], "")


def test_a_batch_that_cannot_vary_is_said(tmp_path: Path) -> None:
    exported = export(Counting(), (3, 2), tmp_path / "net.pt2")
    assert exported.graph.fixed_batch and exported.comparison.difference == 0
    assert from_json(exported.metadata["input"])["batch"] == 2


def test_operators_of_pytorch_alone_are_refused() -> None:
    with pytest.raises(UserError, match="mkldnn"):
        export_graph(Fused(), (5,))


def test_a_file_that_differs_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(*arguments: Any) -> export_formats.Run:
        run = export_formats.save_graph(*arguments)
        return lambda x: run(x) + 0.01

    monkeypatch.setitem(export_formats.WRITERS, ".pt2", wrong)
    with pytest.raises(ExportDiffers):
        export(small("evMLP"), inputs("evMLP", 1).shape[1:], tmp_path / "net.pt2")
    words = ["--cfg", EMPTY, "--out", str(tmp_path / "net.pt2"), *settings_of(tmp_path)]
    assert main(["export", *words]) == 1
    err = capsys.readouterr().err
    assert "differ by" in err and err.count("\n") == 1 and not list(tmp_path.glob("*net.pt2"))


def test_not_a_number_is_a_difference() -> None:
    model = nn.Linear(2, 2)
    found = compare(model, lambda x: model(x) * float("nan"), random_batches((2,), (1, 2)))
    for precision in export_formats.PRECISIONS:
        with pytest.raises(ExportDiffers):
            found.check(precision)


@pytest.mark.parametrize(
    ("precision", "difference", "same", "warned", "refused"),
    [
        ("float32", 2e-4, 10, False, True),
        ("float16", 9e-3, 10, False, False),
        ("float16", 2e-2, 10, True, False),
        ("float16", 0.2, 10, False, True),
        ("int8", 9e-2, 10, False, False),
        ("int8", 0.2, 10, True, False),
        ("int8", 9e-2, 9, True, False),
        ("int8", 0.6, 10, False, True),
    ],
)
def test_poor_exports_are_warned_of_or_refused(
    precision: str, difference: float, same: int, warned: bool, refused: bool, caplog: pytest.LogCaptureFixture
) -> None:
    found = Comparison(difference, same, 10)
    with pytest.raises(ExportDiffers) if refused else contextlib.nullcontext(), caplog.at_level("WARNING", "slowfast"):
        found.check(precision)
    assert ("poor agreement with float32" in caplog.text) is warned


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path)
    assert main(["export", "--cfg", EMPTY, "--out", str(tmp_path / "net.pt2"), *settings]) == 0
    out = capsys.readouterr().out
    assert "largest difference" in out and "(batch, 3, 4, 32, 32), batch any; RGB" in out
    assert torch.export.load(tmp_path / "net.pt2").module()(torch.zeros(5, 3, 4, 32, 32)).shape == (5, 8)
    assert main(["export", "--cfg", EMPTY, "--out", "net.pth", *settings]) == 2
    assert "must end in .pt2 or .onnx" in capsys.readouterr().err

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("slowfast.utils.imports.import_module", missing)
    assert main(["export", "--cfg", EMPTY, "--out", str(tmp_path / "net.onnx"), *settings]) == 2
    assert 'pip install "slowfast[onnx]"' in capsys.readouterr().err
