"""Exported files: metadata, scores of the checkpoint, reduced precision, Triton, and rejected files."""

from __future__ import annotations

import csv
import functools
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, tiny_settings
from test_export import FAST
from triton_config import model_config
from video_files import picture

from slowfast.cli.main import main
from slowfast.cli.setup import load_for_evaluation
from slowfast.config.node import ConfigNode
from slowfast.inference import Predictor, export_formats
from slowfast.inference import export as exporting
from slowfast.inference.export import Exported, config_lines
from slowfast.inference.export_check import Comparison, sample_batches
from slowfast.inference.export_metadata import (
    SCHEMA_KEY,
    export_metadata,
    graph_metadata,
    read_metadata,
)
from slowfast.inference.exported import ExportedFile, ExportedNetwork, open_exported

onnx: Any = pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra onnx, is not installed")

pytestmark = pytest.mark.slow

EMPTY = str(ROOT / "tests" / "empty.yaml")
SHAPE = (3, 4, 32, 32)
# Largest difference from the scores of the checkpoint.
FILES = {"net.onnx": 1e-6, "net.pt2": 1e-6, "float16.onnx": 1e-3, "int8.onnx": 2e-2}


def settings_of(data: Path) -> list[str]:
    return [*map(str, tiny_settings(data, data.parent / "no_run")), *FAST, "DATA_LOADER.NUM_WORKERS", "0"]


@pytest.fixture(scope="module")
def cfg(kinetics_folder: Path) -> ConfigNode:
    return load_for_evaluation(EMPTY, settings_of(kinetics_folder))


@pytest.fixture(scope="module")
def folder(kinetics_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Files of all formats of a network with random weights, by the command; the graph is traced and converted once."""
    out = tmp_path_factory.mktemp("exported")
    graph, convert = exporting.export_graph, functools.cache(export_formats.convert)

    def converted(program: Any) -> Any:
        copy = onnx.ModelProto()
        copy.CopyFrom(convert(program))
        return copy

    first: list[export_formats.Graph] = []

    def traced(model: torch.nn.Module, shape: Any) -> export_formats.Graph:
        first.extend([] if first else [graph(model, shape)])
        return first[0]  # the weights are drawn with the same seed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "export_graph", traced)
        patch.setattr(export_formats, "convert", converted)
        words = ["--cfg", EMPTY, *settings_of(kinetics_folder)]
        targets = [["--out", str(out / "net.onnx")], ["--out", str(out / "net.pt2")]]
        targets += [["--out", str(out / f"{name}.onnx"), "--precision", name] for name in ("float16", "int8")]
        targets[-1] += ["--samples", str(kinetics_folder / "videos" / "left")]
        targets += [["--triton", str(out / "repository"), "--precision", "float16"]]
        for target in targets:
            assert main(["export", *target, *words]) == 0
        yield out


@pytest.fixture(scope="module")
def videos(kinetics_folder: Path) -> list[Path]:
    return sorted((kinetics_folder / "videos").glob("*/test_*.mp4"))[:3]


@pytest.fixture(scope="module")
def wanted(cfg: ConfigNode, videos: list[Path]) -> torch.Tensor:
    """Scores of the checkpoint, (files, classes)."""
    return scores_of(Predictor.from_config(cfg), videos)


def scores_of(predictor: Predictor, files: list[Path]) -> torch.Tensor:
    return torch.stack([one.scores for one in predictor.predict(files) if one.scores is not None])


@pytest.mark.parametrize("name", FILES)
def test_scores_are_those_of_the_checkpoint(
    name: str, folder: Path, videos: list[Path], wanted: torch.Tensor, kinetics_folder: Path
) -> None:
    exported = open_exported(folder / name)
    assert list(exported.metadata.class_names) == (kinetics_folder / "categories.txt").read_text().split()[::2]
    assert exported.metadata.shape == SHAPE and exported.metadata.batch is None
    predictor = exported.predictor()
    for predictor.batch_clips in (1, 8):
        assert (scores_of(predictor, videos) - wanted).abs().max() <= FILES[name]


def test_reduced_precision_is_real(folder: Path) -> None:
    types: dict[str, set[str]] = {}
    for name in ("net.onnx", "float16.onnx", "int8.onnx"):
        model = onnx.load(folder / name)
        types[name] = {onnx.TensorProto.DataType.Name(one.data_type) for one in model.graph.initializer}
        for end in (*model.graph.input, *model.graph.output):
            assert end.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
            assert end.type.tensor_type.shape.dim[0].dim_param == "batch"
        assert str(ROOT) not in str(model)  # no paths of this machine
    assert "FLOAT" in types["net.onnx"] and not types["net.onnx"] & {"FLOAT16", "INT8"}
    assert "FLOAT16" in types["float16.onnx"] and "FLOAT" not in types["float16.onnx"]
    assert "INT8" in types["int8.onnx"]


def test_the_command(folder: Path, videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "empty.mp4"
    broken.write_bytes(b"")
    words = [str(folder / "net.onnx"), *map(str, videos), str(broken), "--out", str(tmp_path / "out")]
    assert main(["run-exported", *words, "TEST.NUM_ENSEMBLE_VIEWS", "1", "TEST.NUM_SPATIAL_CROPS", "1"]) == 0
    out = capsys.readouterr().out
    assert "3 files read, 1 failed" in out and "3 clips in" in out
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert (content["views"], content["crops"], content["precision"]) == (1, 1, "float32")
    assert content["failed"] == [{"path": str(broken), "reason": "the file is empty (0 bytes)"}]
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class_name"] != "" for row in rows] == [True, True, True, False]
    for key in ("DATA.NUM_FRAMES", "MODEL.NUM_CLASSES", "OUTPUT_DIR"):
        assert main(["run-exported", *words, key, "3"]) == 2
        assert f"{key} is fixed by an exported file" in capsys.readouterr().err
    assert main(["run-exported", str(folder / "net.onnx"), str(broken), "--out", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert error == f"error: {broken}: the file is empty (0 bytes)\n" and not (tmp_path / "none").exists()


def test_the_same_entries_in_every_format_and_in_the_documentation(folder: Path) -> None:
    session = onnx.load(folder / "net.onnx")
    entries = {one.key: one.value for one in session.metadata_props}
    with zipfile.ZipFile(folder / "net.pt2") as archive:
        name = next(one for one in archive.namelist() if one.endswith("/extra/slowfast.json"))
        assert json.loads(archive.read(name)) == entries
    page = (ROOT / "docs" / "DEPLOYMENT.md").read_text()
    for key, value in entries.items():
        assert f"| `{key}` |" in page
        if value.startswith("{") and key != "config":
            assert all(f"`{inner}`" in page for inner in json.loads(value)), key
    assert entries[SCHEMA_KEY] == "slowfast-export/1" and entries["channel_order"] == "RGB"
    assert json.loads(entries["sampling"]) == {
        "kind": "span",
        "views": 2,
        "frames": 4,
        "rate": 2,
        "input_fps": 30,
        "offset_sampling": False,
    }


def network_file(cfg: ConfigNode) -> ExportedFile:
    """Return the network of a config as if it were in a file, with restored preprocessing."""
    predictor = Predictor.from_config(cfg)
    model: Any = SimpleNamespace(loaded=None)
    metadata = read_metadata(export_metadata(cfg, model) | graph_metadata(SHAPE), "net.onnx")
    return ExportedFile(ExportedNetwork(predictor.model, None, "net.onnx"), metadata)


def test_images_and_event_recordings(tmp_path: Path) -> None:
    """Preprocessing of other samples than videos is restored, too."""
    data = settings_of(tmp_path / "no_such_data")
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), picture(1, 40, 48))
    rng = np.random.default_rng(0)
    recording = tmp_path / "a.npz"
    columns = {name: rng.integers(0, 32, 200) for name in ("x", "y")}
    np.savez(recording, **columns, t=np.sort(rng.integers(0, 10**6, 200)), p=rng.integers(0, 2, 200))
    sensor = ["DVS.SENSOR_SIZE", "[32,32]"]
    one_view = ["TEST.NUM_ENSEMBLE_VIEWS", "1", "DATA.REVERSE_INPUT_CHANNEL", "True"]
    cases = [
        (image, ["TEST.DATASET", "imagenet", "TRAIN.DATASET", "imagenet", "MODEL.FRAMEWISE", "", *one_view]),
        (
            recording,
            ["TEST.DATASET", "dvsframes", "TRAIN.DATASET", "dvsframes", *sensor, *one_view],
        ),
    ]
    for file, overrides in cases:
        cfg = load_for_evaluation(EMPTY, [*data, *overrides])
        (batch,) = sample_batches(cfg, [file], 2)  # filled by the only clip
        assert len(batch) == 2 and torch.equal(batch[0], batch[1])
        expected = scores_of(Predictor.from_config(cfg), [file])
        assert torch.equal(scores_of(network_file(cfg).predictor(), [file]), expected)


def test_a_fixed_batch_is_filled() -> None:
    sizes = []

    def run(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return x * 2

    network = ExportedNetwork(run, 2, "net.onnx")
    for count in (1, 2, 5):
        x = torch.randn(count, 3)
        assert torch.equal(network(x), x * 2)
    assert set(sizes) == {2}


# ------------------------------------------------------------------ bad files
def edited(change: Callable[[Any], None]) -> Callable[[Path], None]:
    """Return a function that changes an ONNX file."""

    def edit(path: Path) -> None:
        model = onnx.load(path)
        change(model)
        onnx.save(model, path)

    return edit


def entry(name: str, value: str | Callable[[str], str] | None) -> Callable[[Path], None]:
    """Return a function that changes or removes an entry of the metadata of an ONNX file."""

    def change(model: Any) -> None:
        entries = {one.key: one.value for one in model.metadata_props}
        entries[name] = value(entries[name]) if callable(value) else value or ""
        onnx.helper.set_model_props(model, {key: text for key, text in entries.items() if text})

    return edited(change)


def another_network(path: Path) -> None:
    """Write a network of another shape, with the metadata of the file."""
    entries = {one.key: one.value for one in onnx.load(path).metadata_props}
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 5]) for name in ("input", "logits")]
    node = onnx.helper.make_node("Identity", ["input"], ["logits"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "other", ends[:1], ends[1:]))
    model.ir_version, model.opset_import[0].version = 8, 17
    onnx.helper.set_model_props(model, entries)
    onnx.save(model, path)


def opset(model: Any) -> None:
    model.opset_import[0].version = 99


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_metadata(path: Path) -> None:
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(path.with_name("other.pt2"), "w") as other:
        for one in archive.namelist():
            if "slowfast.json" not in one:
                other.writestr(one, archive.read(one))
    path.with_name("other.pt2").rename(path)


BAD = {
    "no metadata": ("net.onnx", edited(lambda model: model.ClearField("metadata_props")), "has no metadata"),
    "later schema": ("net.onnx", entry("schema", "slowfast-export/2"), "Update slowfast"),
    "damaged entry": ("net.onnx", entry("config", "{"), "config of the metadata is missing or damaged"),
    "a path in it": (
        "net.onnx",
        entry("config", lambda text: text.replace("RNG_SEED", "DATA.PATH_PREFIX")),
        "sets DATA.PATH_PREFIX, which it may not",
    ),
    "a bad value": (
        "net.onnx",
        entry("config", lambda text: text.replace('"TEST.BATCH_SIZE": 8', '"TEST.BATCH_SIZE": -1')),
        "config of the metadata: TEST.BATCH_SIZE",
    ),
    "not consistent": ("net.onnx", entry("mean", "[0.5, 0.5, 0.5]"), "but its config gives '[0.45, 0.45, 0.45]'"),
    "no shape": ("net.onnx", entry("input", "{}"), "no valid shape"),
    "other class names": ("net.onnx", entry("class_names", '["a", "b"]'), "has 2 names, but the model has 8 classes"),
    "another network": ("net.onnx", another_network, "it is another network"),
    "opset": ("net.onnx", edited(opset), "Opset 99"),
    "truncated": ("net.onnx", halved, "cannot be read as ONNX: Protobuf parsing failed"),
    "empty": ("net.onnx", lambda path: path.write_bytes(b""), "cannot be read as ONNX"),
    "truncated pt2": ("net.pt2", halved, "cannot be read as a .pt2 archive"),
    "no metadata, pt2": ("net.pt2", without_metadata, "has no metadata"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_reported_in_one_line(
    case: str, folder: Path, videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, damage, message = BAD[case]
    path = Path(shutil.copy(folder / name, tmp_path / name))
    damage(path)
    assert main(["run-exported", str(path), str(videos[0]), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith(f"error: {path}")
    assert not (tmp_path / "out").exists()


def test_other_mistakes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"x")
    for words, message in (
        ([str(tmp_path / "gone.onnx"), "a.mp4"], "does not exist"),
        ([str(tmp_path / "w.safetensors"), "a.mp4"], "slowfast predict --cfg FILE --weights"),
        ([str(ROOT / "README.md"), "a.mp4"], "must end in .onnx or .pt2"),
        ([str(folder / "net.onnx"), str(tmp_path / "gone.mp4")], "does not exist"),
    ):
        assert main(["run-exported", *words, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    base = ["--cfg", EMPTY, *settings_of(tmp_path)]
    (tmp_path / "text.mp4").write_text("no video")
    for words, message in (
        (["--out", "net.pt2", "--precision", "int8"], "is for .onnx files"),
        (["--out", "net.safetensors", "--samples", "a.mp4"], "holds no network"),
        (["--out", "net.onnx", "--samples", str(tmp_path / "text.mp4")], "text.mp4 cannot be read: not a video"),
        (["--out", "net.onnx", "--triton-name", "a"], "needs --triton"),
        (["--triton", str(folder / "repository")], "has a model evmlp already"),
        (["--triton", str(tmp_path), "--triton-name", "../a"], "use letters, digits"),
    ):
        assert main(["export", *words, *base]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


# ------------------------------------------------------------------ Triton
def test_the_triton_repository_fits_the_onnx_file(folder: Path, kinetics_folder: Path) -> None:
    from google.protobuf import text_format

    root = folder / "repository" / "evmlp"
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    assert files == ["1/model.onnx", "config.pbtxt", "labels.txt"]
    config = text_format.Parse((root / "config.pbtxt").read_text(), model_config())  # an unknown field is an error
    assert (config.name, config.backend, config.max_batch_size) == (root.name, "onnxruntime", 8)
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    graph = onnx.load(root / "1" / "model.onnx").graph
    for described, ends in ((config.input, graph.input), (config.output, graph.output)):
        assert [one.name for one in described] == [one.name for one in ends]
        for one, end in zip(described, ends, strict=True):
            first, *rest = end.type.tensor_type.shape.dim
            assert first.dim_param and list(one.dims) == [dimension.dim_value for dimension in rest]
            assert one.data_type == 11 and end.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    labels = (root / config.output[0].label_filename).read_text().splitlines()
    assert labels == (kinetics_folder / "categories.txt").read_text().split()[::2]
    entries = {one.key: one.value for one in onnx.load(root / "1" / "model.onnx").metadata_props}
    parameters = {one.key: one.value.string_value for one in config.parameters}
    assert parameters == {key: entries[key] for key in entries if key not in ("class_names", "config")}


def test_a_fixed_batch_is_part_of_the_dimensions() -> None:
    from google.protobuf import text_format

    graph: Any = SimpleNamespace(batch=2)
    exported = Exported(graph, SHAPE, Comparison(0.0, 1, 1), {"model": 'a"b\\c'})
    config = text_format.Parse("\n".join(config_lines("net", exported, 8, 16)), model_config())
    assert config.max_batch_size == 0 and not config.HasField("dynamic_batching")
    assert (list(config.input[0].dims), list(config.output[0].dims)) == ([2, *SHAPE], [2, 8])
    assert config.parameters[0].value.string_value == 'a"b\\c'


# ------------------------------------------------------------------ the example
def test_the_example_needs_neither_torch_nor_this_package(folder: Path, cfg: ConfigNode, videos: list[Path]) -> None:
    example = ROOT / "examples" / "deploy" / "classify_onnx.py"
    names = ("torch", "slowfast", "cv2", "PIL", "onnx", "yaml")
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({names!r}))\n"  # None: importing them is an error
        f"sys.argv = {[str(example), str(folder / 'net.onnx'), *map(str, videos)]!r}\n"
        f"runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    overrides = ["TEST.NUM_ENSEMBLE_VIEWS", "1", "TEST.NUM_SPATIAL_CROPS", "1"]
    exported = open_exported(folder / "net.onnx", overrides)
    lines = done.stdout.splitlines()
    for number, prediction in enumerate(exported.predictor().predict(videos)):
        path, *best = lines[6 * number : 6 * number + 6]
        assert path == str(videos[number])
        found = {line.split()[0]: float(line.split()[1]) for line in best}
        expected = dict(prediction.best())
        assert max(abs(found[name] - expected[name]) for name in found.keys() & expected.keys()) < 1e-3
        assert len(found.keys() & expected.keys()) >= 4
