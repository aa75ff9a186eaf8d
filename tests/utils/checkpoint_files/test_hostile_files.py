"""Files that try to run code or to exhaust memory or stack: rejected in one line, without effect."""

from __future__ import annotations

import builtins
import functools
import io
import operator
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from slowfast.errors import CheckpointError
from slowfast.utils.checkpoint_files.inert import InertObject
from slowfast.utils.checkpoint_files.read import read_paddle_file, read_torch_file

pytestmark = pytest.mark.slow


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function: Callable[..., Any], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class Setter:
    """Pickled as an object of a real class with the state given."""

    def __init__(self, cls: type, args: tuple[object, ...], state: object) -> None:
        self.parts = cls, args, state

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def archive(pickled: bytes, path: Path) -> Path:
    """Write a valid archive of torch.save around a pickle."""
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(3)}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickled if name.endswith("data.pkl") else old.read(name))
    return path


def global_(name: str) -> bytes:
    return b"c" + b"\n".join(part.encode() for part in name.rsplit(".", 1)) + b"\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


TRACE = "trace"
CALLS = {
    "os.system": lambda f: Call(os.system, f"touch {f}"),
    "os.mkdir": lambda f: Call(os.mkdir, str(f)),
    "eval": lambda f: Call(eval, f"open({str(f)!r}, 'w')"),
    "exec": lambda f: Call(exec, f"open({str(f)!r}, 'w')"),
    "open": lambda f: Call(builtins.open, str(f), "w"),
    "getattr": lambda f: Call(getattr, 1, "real"),
    "partial": lambda f: functools.partial(os.mkdir, str(f)),
    "attrgetter": lambda f: operator.attrgetter("system"),
    "methodcaller": lambda f: operator.methodcaller("mkdir"),
    "Popen": lambda f: Call(subprocess.Popen, ["touch", str(f)]),
    "torch.load": lambda f: Call(torch.load, str(f)),
    "torch.save": lambda f: Call(torch.save, 1, str(f)),
    "pickle.loads": lambda f: Call(pickle.loads, pickle.dumps(Call(os.mkdir, str(f)))),
    "nested": lambda f: {"a": [({"b": Call(os.mkdir, str(f))},)]},
    "state of a module": lambda f: Setter(torch.nn.Module, (), {"a": 1}),
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", CALLS)
def test_no_call_is_made(name: str, protocol: int, tmp_path: Path) -> None:
    trace = tmp_path / TRACE
    pickled = pickle.dumps({"model": {}, "x": CALLS[name](trace)}, protocol=protocol)
    bare = tmp_path / "bare.pdparams"
    bare.write_bytes(pickled)
    for read, path in ((read_torch_file, archive(pickled, tmp_path / "a.pth")), (read_paddle_file, bare)):
        with pytest.raises(CheckpointError, match="cannot be read as .* it refers to") as caught:
            read(path)
        message = str(caught.value)
        assert "\n" not in message and "weights_only" not in message and "safe_globals" not in message
        assert "torch.save(model.state_dict()" in message
    assert not trace.exists()


MACHINE_TRICKS = {
    "call of a result": global_("collections.OrderedDict") + b")R)R.",
    "new object of a value": b"K\x01)\x81.",
    "class from another's attribute": global_("torch.nn.Module.__init__") + b")R.",
    "builtins through a module": global_("torch.os.system") + text("true") + b"\x85R.",
    "numpy function": global_("numpy.f2py.crackfortran.myeval") + text("1") + b"\x85R.",
    "changes of a class": global_("collections.OrderedDict") + b"N}" + text("update") + b"K\x01s\x86b.",
    "changes of a dtype": global_("torch.float32") + b"}" + text("a") + b"K\x01sb.",
    "state of a tuple": b")}b.",
    "append to a dict": b"}K\x01a.",
    "unknown persistent data": text("storage") + b"Q.",
    "extension registry": b"\x82\x01.",
    "out-of-band buffer": b"\x97.",
    "old-style instance": b"(iposix\nsystem\n.",
    "object operation": b"(" + global_("os.system") + text("true") + b"o.",
    "pop below a mark": b"K\x01(0000.",
    "two results": b"K\x01K\x02.",
    "no end": b"K\x01",
    "memo that is not there": b"h\x05.",
    "unhashable key": b"}]K\x01s.",
    "deep key": b"}" + b")" + b"\x85" * 100_000 + b"K\x01s.",
    "huge text": b"X\xff\xff\xff\xff.",
    "huge bytes": b"\x8e" + struct.pack("<Q", 2**60) + b".",
    "huge bytearray": b"\x96" + struct.pack("<Q", 2**60) + b".",
    "huge integer": b"\x8b" + struct.pack("<i", 2**31 - 1) + b".",
    "integer of many digits": b"I" + b"9" * 100_000 + b"\n.",
    "bytearray of a size": global_("builtins.bytearray") + b"J\xff\xff\xff\x7f\x85R.",
    "copies over and over": text("x" * 50_000) + b"q\x00" + (global_("_codecs.encode") + b"h\x00\x85R") * 200 + b"t.",
    "dtype of objects in a scalar": global_("numpy.core.multiarray.scalar")
    + global_("numpy.dtype")
    + text("O8")
    + b"\x85RC\x08" * 1
    + b"\x00" * 8
    + b"\x86R.",
    "array larger than its data": global_("numpy.core.multiarray._reconstruct")
    + global_("numpy.ndarray")
    + b"K\x00\x85C\x01b\x87R(K\x01J\xff\xff\xff\x7f\x85"
    + global_("numpy.dtype")
    + text("f4")
    + b"\x85R\x89C\x04\x00\x00\x00\x00tb.",
}


@pytest.mark.parametrize("name", MACHINE_TRICKS)
def test_tricks_of_the_stack_machine_are_refused(name: str, tmp_path: Path) -> None:
    pickled = b"\x80\x02" + MACHINE_TRICKS[name]
    bare = tmp_path / "bare.pdparams"
    bare.write_bytes(pickled)
    for read, path in ((read_torch_file, archive(pickled, tmp_path / "a.pth")), (read_paddle_file, bare)):
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600 + len(str(path))


def test_deep_nesting_is_read_or_refused_without_a_crash(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from slowfast.utils.checkpoint_files.read import read_paddle_file\n"
        "for name in sys.argv[1:]:\n"
        "    try: read_paddle_file(Path(name))\n"
        "    except Exception as error: print(type(error).__name__)\n"
        "print('alive')"
    )
    files = []
    for number, opening in enumerate((b"]" * 200_000 + b"a" * 199_999, b")" + b"\x85" * 200_000, b"}" * 200_000)):
        files.append(tmp_path / f"{number}.pdparams")
        files[-1].write_bytes(b"\x80\x02" + opening + b".")
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, files)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stdout.endswith("alive\n"), done.stderr


STORAGE_TRICKS = {
    "of another size": ("FloatStorage", "0", 4),
    "that is not there": ("FloatStorage", "7", 3),
    "of a negative size": ("FloatStorage", "0", -3),
    "of a size beyond memory": ("FloatStorage", "0", 2**62),
    "of an unknown type": ("SecretStorage", "0", 3),
    "outside of the archive": ("FloatStorage", "../../etc/passwd", 3),
}


@pytest.mark.parametrize("name", STORAGE_TRICKS)
def test_storages_that_are_not_in_the_file_are_refused(name: str, tmp_path: Path) -> None:
    kind, key, count = STORAGE_TRICKS[name]
    identity = b"(" + text("storage") + global_(f"torch.{kind}") + text(key) + text("cpu")
    identity += b"\x8a\x08" + struct.pack("<q", count) + b"tQ."
    with pytest.raises(CheckpointError):
        read_torch_file(archive(b"\x80\x02" + identity, tmp_path / "a.pth"))


@pytest.mark.parametrize(
    "shape", [(1, (4,), (1,)), (0, (2, 2), (2, 1)), (0, (3,), (-1,)), (-1, (1,), (1,)), (0, (2**50,), (0,))]
)
def test_tensors_beyond_their_storage_are_refused(shape: tuple[Any, ...], tmp_path: Path) -> None:
    storage = b"(" + text("storage") + global_("torch.FloatStorage") + text("0") + text("cpu") + b"K\x03tQ"
    parts = [pickle.dumps(part, protocol=2)[2:-1] for part in (*shape, False, {})]  # without their start and stop
    args = b"(" + storage + b"".join(parts) + b"t"
    with pytest.raises(CheckpointError):
        read_torch_file(
            archive(b"\x80\x02" + global_("torch._utils._rebuild_tensor_v2") + args + b"R.", tmp_path / "a.pth")
        )


def test_scripted_and_other_archives_are_told_apart(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(CheckpointError, match="is a TorchScript program"):
        read_torch_file(tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as file:
        file.writestr("a.txt", "text")
    with pytest.raises(CheckpointError, match=r"not one of torch\.save"):
        read_torch_file(tmp_path / "other.pth")


def test_a_compressed_archive_that_expands_too_far_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", bytes(50_000_000))
    with pytest.raises(CheckpointError, match="larger than the file"):
        read_torch_file(tmp_path / "bomb.pth")


def test_objects_of_unknown_classes_do_nothing(tmp_path: Path) -> None:
    fired: list[str] = []

    class Loud:
        def __setstate__(self, state: object) -> None:
            fired.append("state")

        def __new__(cls) -> Loud:
            fired.append("new")
            return super().__new__(cls)

    loud = Loud()
    loud.value = 3  # type: ignore[attr-defined]
    fired.clear()
    Loud.__qualname__ = "Loud"
    globals()["Loud"] = Loud
    try:
        torch.save({"w": torch.ones(2), "x": loud}, tmp_path / "a.pth")
    finally:
        del globals()["Loud"]
    content = read_torch_file(tmp_path / "a.pth")
    assert isinstance(content["x"], InertObject) and content["x"].state == {"value": 3}
    assert content["x"].class_name.endswith(".Loud") and not callable(content["x"]) and not fired
    assert torch.equal(content["w"], torch.ones(2))
