"""Published weight files: every wrapping is read, unsafe content is not, and nothing is loaded partly."""

from __future__ import annotations

import argparse
import logging
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slowfast.errors import CheckpointError
from slowfast.models.morphmlp import MorphMLP
from slowfast.models.weights import load_weights, read_weights


def small(layers: tuple = (1, 1, 1, 1), embed_dims: tuple = (16, 24, 32, 40), classes: int = 7) -> MorphMLP:
    return MorphMLP(classes, 4, layers, embed_dims, (4, 4, 4, 1))


class Mixed(nn.Module):
    """Layers that Paddle stores in other ways: rectangular and square Linear, BatchNorm, a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2)
        self.bn = nn.BatchNorm2d(4)
        self.wide = nn.Linear(4, 6)
        self.square = nn.Linear(6, 6)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def same(state: dict, want: dict) -> bool:
    return state.keys() == want.keys() and all(torch.equal(state[key], want[key]) for key in want)


WRAPPINGS = {
    "raw": lambda s: s,
    "slowfast": lambda s: {"model_state": s, "epoch": 9, "optimizer_state": {"state": {}}, "cfg": "MODEL:\n"},
    "deit": lambda s: {"model": s, "epoch": 299},
    "lightning": lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}, "epoch": 1, "global_step": 2},
    "lightning without prefix": lambda s: {"state_dict": s, "pytorch-lightning_version": "2.5"},
    "ddp": lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
    "compiled in ddp": lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS.keys())
def test_every_wrapping_of_pytorch_weights(wrap, tmp_path: Path) -> None:
    source, target = small(), small()
    path = saved(tmp_path / "w.pth", wrap(source.state_dict()))
    load_weights(target, read_weights(path, "pytorch", target), path)
    assert same(target.state_dict(), source.state_dict())


def test_a_prefix_that_the_network_itself_has_stays(tmp_path: Path) -> None:
    model = nn.ModuleDict({"model": nn.Linear(2, 3)})
    path = saved(tmp_path / "w.pth", model.state_dict())
    assert same(read_weights(path, "pytorch", model), model.state_dict())


def test_averaged_weights_when_wanted(tmp_path: Path) -> None:
    raw, average = small(), small()
    path = saved(tmp_path / "w.pyth", {"model_state": raw.state_dict(), "ema_state": average.state_dict()})
    assert same(read_weights(path, "pytorch", raw), raw.state_dict())
    assert same(read_weights(path, "pytorch", raw, "auto"), average.state_dict())
    path = saved(tmp_path / "plain.pyth", {"model_state": raw.state_dict()})
    assert same(read_weights(path, "pytorch", raw, "auto"), raw.state_dict())


def averaged_module(model: nn.Module) -> dict:
    """Return the state of an AveragedModel around DistributedDataParallel, as torchvision's references save it."""
    return torch.optim.swa_utils.AveragedModel(nn.ModuleDict({"module": model})).state_dict()


AVERAGES = {
    "this project": ("ema_state", lambda m: m.state_dict(), "model_state"),
    "DeiT": ("model_ema", lambda m: m.state_dict(), "model"),
    "timm": ("state_dict_ema", lambda m: {f"module.{k}": v for k, v in m.state_dict().items()}, "state_dict"),
    "torchvision": ("model_ema", averaged_module, "model"),
    "nested": ("ema", lambda m: {"state_dict": m.state_dict(), "decay": 0.99}, "net"),
}


@pytest.mark.parametrize("name", AVERAGES)
def test_raw_or_averaged_weights(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key, pack, raw_key = AVERAGES[name]
    raw, average = small(), small()
    path = saved(tmp_path / "w.pth", {raw_key: raw.state_dict(), key: pack(average), "args": argparse.Namespace(lr=1)})
    with caplog.at_level(logging.INFO, "slowfast"):
        assert same(read_weights(path, "pytorch", raw, "auto"), average.state_dict())
        assert f"Using the averaged weights ({key!r}) of {path}; it also holds raw weights ({raw_key!r})" in caplog.text
        caplog.clear()
        assert same(read_weights(path, "pytorch", raw, "raw"), raw.state_dict())
        assert f"Using the raw weights ({raw_key!r})" in caplog.text
    assert same(read_weights(path, "pytorch", raw, "ema"), average.state_dict())
    assert same(read_weights(path, "pytorch", raw), raw.state_dict())  # to start training from


def test_weights_that_are_asked_for_but_not_there(tmp_path: Path) -> None:
    model = small()
    for content, choice in (({"model": model.state_dict(), "model_ema": None}, "ema"), (averaged_module(model), "raw")):
        path = saved(tmp_path / "w.pth", content)
        with pytest.raises(CheckpointError, match=f"TEST.CHECKPOINT_WEIGHTS {choice} asks for. It holds"):
            read_weights(path, "pytorch", model, choice)
        assert same(read_weights(path, "pytorch", model, "auto"), model.state_dict())


def test_a_whole_pickled_model_says_how_to_save_its_weights(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match=r"object of the class torch\.nn\..*Linear.*torch\.save\("):
        read_weights(path, "pytorch", small())


class PaddleTensor:
    """Pickled as paddle.save pickles a tensor inside a nested dict."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self.parts = name, array

    def __reduce__(self):
        return tuple, (self.parts,)


@pytest.mark.parametrize("nested_tensors", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_paddle_training_checkpoints(protocol: int, nested_tensors: bool, tmp_path: Path) -> None:
    source, average, target = Mixed(), Mixed(), Mixed()

    def packed(model: nn.Module) -> OrderedDict:
        content = paddle_content(model)
        names = content.pop("StructuredToParameterName@@")
        if nested_tensors:
            return OrderedDict((key, PaddleTensor(names[key], value)) for key, value in content.items())
        return OrderedDict(content)

    optimizer = {"linear_0.w_0_moment1_0": np.ones(3, np.float32), "LR_Scheduler": {"last_epoch": 3, "last_lr": 0.1}}
    path = tmp_path / "w.pdparams"
    content = {"model": packed(source), "model_ema": packed(average), "optimizer": optimizer, "epoch": 3}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    load_weights(target, read_weights(path, "paddle", target, "raw"), path)
    assert same(target.state_dict(), source.state_dict())
    load_weights(target, read_weights(path, "paddle", target, "auto"), path)
    assert same(target.state_dict(), average.state_dict())


def test_a_file_of_the_other_kind_says_which_type_to_set(tmp_path: Path) -> None:
    torch_file, paddle_file = saved(tmp_path / "w.pth", small().state_dict()), tmp_path / "w.pdparams"
    paddle_file.write_bytes(pickle.dumps(paddle_content(Mixed()), protocol=4))
    with pytest.raises(CheckpointError, match="CHECKPOINT_TYPE pytorch"):
        read_weights(torch_file, "paddle", small())
    with pytest.raises(CheckpointError, match="CHECKPOINT_TYPE paddle"):
        read_weights(paddle_file, "pytorch", small())


def paddle_content(model: nn.Module) -> dict:
    """As Paddle names and stores the model's weights."""
    linear = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    content = {}
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            name = key.replace("running_mean", "_mean").replace("running_var", "_variance")
            content[name] = (value.t() if key in linear else value).contiguous().numpy()
    return content | {"StructuredToParameterName@@": {key: f"linear_{i}.w_0" for i, key in enumerate(content)}}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_paddle_weights(protocol: int, tmp_path: Path) -> None:
    source, target = Mixed(), Mixed()
    nn.init.normal_(source.bn.running_mean)
    path = tmp_path / "w.pdparams"
    path.write_bytes(pickle.dumps(paddle_content(source), protocol=protocol))
    load_weights(target, read_weights(path, "paddle", target), path)
    assert same(target.state_dict(), source.state_dict())


def test_paddle_file_with_linear_weights_as_pytorch_stores_them(tmp_path: Path) -> None:
    source, target = Mixed(), Mixed()
    path = tmp_path / "w.pdparams"
    path.write_bytes(pickle.dumps({key: value.numpy() for key, value in source.state_dict().items()}, protocol=4))
    load_weights(target, read_weights(path, "paddle", target), path)
    assert same(target.state_dict(), source.state_dict())


class Malicious:
    """Makes a folder when unpickled by a plain unpickler."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("kind", ["pytorch", "paddle"])
@pytest.mark.parametrize("write", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj, protocol=4))])
def test_a_malicious_file_is_refused_and_not_run(kind: str, write, tmp_path: Path) -> None:
    path, trace = tmp_path / "evil", tmp_path / "trace"
    write({"head.weight": np.zeros(3), "x": Malicious(trace)}, path)
    with pytest.raises(CheckpointError, match="evil cannot be read"):
        read_weights(path, kind, Mixed())
    assert not trace.exists()


def test_a_paddle_file_may_not_name_harmless_looking_functions(tmp_path: Path) -> None:
    path = tmp_path / "w.pdparams"
    path.write_bytes(b"cnumpy\nload\n(S'x.npy'\ntR.")
    with pytest.raises(CheckpointError, match="numpy.load"):
        read_weights(path, "paddle", Mixed())


@pytest.mark.parametrize("kind", ["pytorch", "paddle"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps({"a": np.zeros(3)})[:-20]])
def test_damaged_files(kind: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"w\.pth cannot be read"):
        read_weights(path, kind, Mixed())


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no.pth does not exist"):
        read_weights(tmp_path / "no.pth", "pytorch", Mixed())
    with pytest.raises(CheckpointError, match="is a directory"):
        read_weights(tmp_path, "pytorch", Mixed())


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, {"model": {"a": "text"}}, {"names": np.array(["a"])}])
def test_files_without_weights(content: object, tmp_path: Path) -> None:
    path = tmp_path / "w.pdparams"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_weights(path, "paddle", Mixed())


def refused(model: nn.Module, state: dict, allow_new_head: bool = False) -> str:
    """The message; the network must be as before."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, state, Path("w.pth"), allow_new_head)
    assert same(model.state_dict(), before)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_of_a_deeper_network_name_both_depths() -> None:
    message = refused(small(), small(layers=(1, 2, 3, 1)).state_dict(), allow_new_head=True)
    assert "depth of blocks2, blocks3 is 2 3 in the file, 1 1 in the network" in message
    assert "blocks2.1." in message and "w.pth" in message and "MorphMLP" in message


def test_weights_of_a_shallower_network_name_both_depths() -> None:
    message = refused(small(layers=(1, 2, 1, 1)), small().state_dict())
    assert "depth of blocks2 is 1 in the file, 2 in the network" in message and "weights are not in the file" in message


def test_weights_of_another_width_name_both_shapes() -> None:
    message = refused(small(), small(embed_dims=(16, 24, 32, 48)).state_dict(), allow_new_head=True)
    assert "(48, 32, 1, 3, 3) in the file, (40, 32, 1, 3, 3) in the network" in message


def test_a_missing_and_an_unknown_key_are_named() -> None:
    state = small().state_dict()
    state["extra.weight"] = state.pop("norm.weight")
    message = refused(small(), state)
    assert "1 keys of the file are unknown (extra.weight)" in message
    assert "1 weights are not in the file (norm.weight)" in message


def test_another_head_is_replaced_only_when_allowed(caplog: pytest.LogCaptureFixture) -> None:
    source, target = small(classes=9), small(classes=7)
    assert "head.weight: (9, 40) in the file, (7, 40) in the network" in refused(target, source.state_dict())
    head = target.head.weight.clone()
    with caplog.at_level(logging.WARNING, "slowfast"):
        load_weights(target, source.state_dict(), Path("w.pth"), allow_new_head=True)
    assert "9 classes" in caplog.text and "7" in caplog.text
    assert torch.equal(target.head.weight, head) and torch.equal(target.norm.weight, source.norm.weight)
    assert torch.equal(target.patch_embed1.proj1.weight, source.patch_embed1.proj1.weight)


def test_an_equal_head_is_loaded_when_a_new_one_is_allowed() -> None:
    source, target = small(), small()
    load_weights(target, source.state_dict(), Path("w.pth"), allow_new_head=True)
    assert torch.equal(target.head.weight, source.head.weight)
