"""Plain values in checkpoints are read unchanged, in every format of PyTorch and pickle."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import pickle
import types
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
import yacs.config

from slowfast.utils.checkpoint_files.inert import GlobalName, InertObject
from slowfast.utils.checkpoint_files.read import read_paddle_file, read_torch_file


class Color(enum.Enum):
    RED = 1


def train() -> None:
    """A function that settings may name."""


def same(one: Any, other: Any) -> bool:
    """Compare values of any type, NaN equal to NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and one.stride() == other.stride() and same(
            one.contiguous().flatten().view(torch.uint8).numpy() if one.numel() else None,
            other.contiguous().flatten().view(torch.uint8).numpy() if one.numel() else None,
        )  # fmt: skip
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return repr(one) == repr(other)


VALUES: dict[str, Any] = {
    "numbers": [0, -1, 2**31, 2**100, -(2**70), 1.5, float("nan"), float("-inf"), True, None, 1 + 2j],
    "text": ["", "a", "ä\u20ac", "x" * 300, b"", b"\x00\xff", bytearray(b"ab")],
    "containers": [(), (1,), (1, 2, 3, 4), [[]], {}, {1: {2: (3,)}}, {1, 2}, frozenset({"a"}), range(2, 9, 3)],
    "OrderedDict": collections.OrderedDict([("b", 1), ("a", 2)]),
    "Counter": collections.Counter({7: 1, 9: 2}),
    "NumPy scalars": [np.float64(0.3), np.float32(2), np.int64(2), np.bool_(True), np.uint8(3), np.str_("ab")],
    "NumPy arrays": [np.arange(6.0).reshape(2, 3), np.arange(3, dtype=">i4"), np.zeros((0, 2)), np.array(True)],
    "Fortran array": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "dtypes": [np.dtype("float32"), np.dtype(">i2"), torch.bfloat16, torch.uint8],
    "torch values": [torch.Size([2, 3]), torch.device("cuda", 1), torch.device("cpu")],
    "times": [
        datetime.datetime(2024, 5, 6, 7, 8, 9, 10, datetime.UTC),
        datetime.date(2024, 5, 6),
        datetime.time(1, 2),
        datetime.timedelta(3, 4, 5),
    ],
    "Namespace": argparse.Namespace(lr=0.1, sizes=[1, 2], best=np.float64(3)),
    "SimpleNamespace": types.SimpleNamespace(a=1),
    "tensors": [
        torch.arange(12.0).view(3, 4).t(),
        torch.arange(5)[2:],
        torch.tensor(3),
        torch.empty(0, 4),
        torch.tensor([True, False]),
        *(torch.ones(3).to(dtype) for dtype in (torch.bfloat16, torch.float16, torch.uint16, torch.float8_e5m2)),
        torch.ones(2, dtype=torch.complex64),
    ],
    "generator states": [torch.get_rng_state(), np.random.MT19937(3).state],
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", VALUES)
def test_values_of_torch_files(name: str, protocol: int, zipped: bool, tmp_path: Path) -> None:
    path, value = tmp_path / "a.pth", VALUES[name]
    torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert same(read_torch_file(path), value)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", sorted(VALUES.keys() - {"torch values", "tensors", "dtypes", "generator states"}))
def test_values_of_bare_pickles(name: str, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "a.pdparams"
    path.write_bytes(pickle.dumps(VALUES[name], protocol=protocol))
    assert same(read_paddle_file(path), VALUES[name])


def test_names_of_numpy_1_are_read(tmp_path: Path) -> None:
    pickled = pickle.dumps({"s": np.float64(0.25), "a": np.arange(3)}, protocol=2)
    for name in (b"numpy.core", b"numpy._core"):
        old = pickled.replace(b"numpy._core", name).replace(b"numpy.core", name)
        path = tmp_path / "a.pdparams"
        path.write_bytes(old)
        content = read_paddle_file(path)
        assert same(content["s"], np.float64(0.25)) and same(content["a"], np.arange(3))


def test_values_that_become_simpler_ones(tmp_path: Path) -> None:
    content = {
        "factory": collections.defaultdict(dict, {0: {"step": 1}}),
        "queue": collections.deque([1, 2], maxlen=5),
        "path": Path("/data/x"),
        "objects": np.array([1, "a"], dtype=object),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "version": torch.__version__,
    }
    torch.save(content, tmp_path / "a.pth")
    want = {
        "factory": {0: {"step": 1}},
        "queue": [1, 2],
        "path": PurePosixPath("/data/x"),
        "objects": [1, "a"],
        "parameter": torch.ones(2),
        "version": str(torch.__version__),
    }
    assert same(read_torch_file(tmp_path / "a.pth"), want)


def test_classes_and_functions_of_others_are_inert(tmp_path: Path) -> None:
    cfg = yacs.config.CfgNode({"TRAIN": {"LR": 0.1}})
    args = argparse.Namespace(run=train, color=Color.RED, cfg=cfg)
    torch.save({"args": args, "w": torch.ones(1)}, tmp_path / "a.pth")
    args = read_torch_file(tmp_path / "a.pth")["args"]
    assert isinstance(args.run, GlobalName) and args.run.name == "train" and not callable(args.run)
    assert isinstance(args.color, InertObject) and args.color.args == (1,)
    assert args.cfg["TRAIN"]["LR"] == 0.1 and args.cfg.class_name == "yacs.config.CfgNode"


def test_an_optimizer_and_its_module_load_from_what_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.randn(8, 3)).square().sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "a.pth")
    content = read_torch_file(tmp_path / "a.pth")
    want = torch.load(tmp_path / "a.pth", weights_only=True)
    assert same(content["optimizer"], want["optimizer"])
    assert content["model"]._metadata == want["model"]._metadata and same(content["model"], want["model"])
    optimizer.load_state_dict(content["optimizer"])
    model.load_state_dict(content["model"])


def test_tensors_that_share_memory_still_do(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    torch.save([base, base[2:], base.view(2, 3)], tmp_path / "a.pth")
    whole, part, grid = read_torch_file(tmp_path / "a.pth")
    whole[3] = 9
    assert part[1] == 9 and grid[1, 0] == 9
