"""Several processes: environment variables, devices of ranks, and errors that are reported once."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch

from slowfast.cli import run as run_module
from slowfast.cli.setup import load_config
from slowfast.errors import ConfigError, IndexFileError, UserError
from slowfast.utils.distributed import World, init_distributed
from slowfast.utils.launch import LaunchEnvironment, is_main_process
from tests.conftest import ROOT, run_net, tiny_settings

pytestmark = pytest.mark.slow

EMPTY = ROOT / "tests" / "empty.yaml"


VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def given(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for pair in text.split():
        monkeypatch.setenv(*pair.split("=", 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", LaunchEnvironment()),
        ("WORLD_SIZE=1", LaunchEnvironment()),
        ("WORLD_SIZE= RANK=", LaunchEnvironment()),
        ("RANK=0", LaunchEnvironment()),
        ("RANK=2 WORLD_SIZE=3 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2", LaunchEnvironment(2, 3, 1, 2)),
    ],
)
def test_the_place_among_processes(monkeypatch: pytest.MonkeyPatch, text: str, expected: LaunchEnvironment) -> None:
    given(monkeypatch, text)
    assert LaunchEnvironment.from_environment() == expected
    assert is_main_process() == (expected.rank == 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("WORLD_SIZE=2", "WORLD_SIZE is 2 but RANK is not set. Unset WORLD_SIZE, or start with torchrun"),
        ("RANK=1", "RANK is 1 but WORLD_SIZE is not set"),
        ("RANK=2 WORLD_SIZE=2", "RANK is 2 but WORLD_SIZE is 2"),
        ("RANK=-1 WORLD_SIZE=2", "RANK is '-1'; it must be a number from 0"),
        ("RANK=0 WORLD_SIZE=0", "WORLD_SIZE is '0'; it must be a number from 1"),
        ("RANK=0 WORLD_SIZE=two", "WORLD_SIZE is 'two'"),
        ("RANK=0 WORLD_SIZE=\u0662", "WORLD_SIZE is '\u0662'"),
        ("RANK=0 WORLD_SIZE=99999999999999999999", "WORLD_SIZE is '9999"),
        ("RANK=0 WORLD_SIZE=2 LOCAL_RANK=x", "LOCAL_RANK is 'x'"),
        ("RANK=0 WORLD_SIZE=2 LOCAL_RANK=2 LOCAL_WORLD_SIZE=2", "LOCAL_RANK is 2 but LOCAL_WORLD_SIZE is 2"),
        ("RANK=0 WORLD_SIZE=2", "WORLD_SIZE is 2 but MASTER_ADDR is not set"),
        ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=localhost", "WORLD_SIZE is 2 but MASTER_PORT is not set"),
        ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=localhost MASTER_PORT=http", "MASTER_PORT is 'http'"),
        ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=localhost MASTER_PORT=65536", "MASTER_PORT is '65536'"),
        (
            "RANK=1 WORLD_SIZE=2 MASTER_ADDR=no.such.host.invalid MASTER_PORT=29999",
            "MASTER_ADDR is 'no.such.host.invalid'",
        ),
    ],
)
def test_an_environment_that_makes_no_sense_is_a_user_error(
    monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    given(monkeypatch, text)
    with pytest.raises(UserError) as error:
        init_distributed(0, timeout=2)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_port_in_use_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = server.getsockname()[1]
        given(monkeypatch, f"RANK=0 WORLD_SIZE=2 MASTER_ADDR=localhost MASTER_PORT={port}")
        with pytest.raises(UserError, match=f"MASTER_PORT {port} is in use by another process"):
            init_distributed(0, timeout=5)


def test_others_that_never_come_are_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
    given(monkeypatch, f"RANK=0 WORLD_SIZE=2 MASTER_ADDR=localhost MASTER_PORT={port}")
    with pytest.raises(UserError, match="WORLD_SIZE is 2 but not all processes connected to .* within 1 s"):
        init_distributed(0, timeout=1)


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A machine that reports four GPUs; returns the chosen devices."""
    chosen: list[torch.device] = []
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


@pytest.mark.parametrize(
    ("num_gpus", "processes", "device"),
    [(1, 1, "cuda:0"), (4, 4, "cuda:2"), (1, 4, "cuda:2"), (0, 4, "cpu"), (4, 5, "cpu"), (8, 1, "cuda:0")],
)
def test_each_process_takes_a_gpu_where_there_are_enough(
    four_gpus: list[torch.device], monkeypatch: pytest.MonkeyPatch, num_gpus: int, processes: int, device: str
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setenv("LOCAL_RANK", "2" if processes > 1 else "0")
    assert init_distributed(num_gpus).device == torch.device(device)
    assert four_gpus == ([torch.device(device)] if device != "cpu" else [])


def test_indices_are_read_before_processes_are_started(
    four_gpus: list[torch.device], kinetics_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    class FakeLauncher:
        def __init__(self, count: int) -> None:
            started.append(count)

        def run(self) -> int:
            return 3

    monkeypatch.setattr(run_module, "Launcher", FakeLauncher)
    settings = [*tiny_settings(kinetics_folder, tmp_path / "out"), "NUM_GPUS", 4]
    with pytest.raises(SystemExit) as ended:
        run_module.run(load_config(EMPTY, settings))
    assert ended.value.code == 3 and started == [4]
    with pytest.raises(IndexFileError, match="nowhere"):
        run_module.run(load_config(EMPTY, [*settings, "DATA.PATH_TO_DATA_DIR", str(tmp_path / "nowhere")]))
    assert started == [4]


@pytest.mark.parametrize(
    ("device", "words"), [("cpu", "no GPU is available; running on the CPU"), ("cuda", "2 are available; running on 2")]
)
def test_fewer_gpus_than_wanted_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, device: str, words: str
) -> None:
    monkeypatch.setattr(run_module, "usable_gpus", lambda wanted: 2 if device == "cuda" else 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    cfg = load_config(EMPTY, ["NUM_GPUS", 4, "OUTPUT_DIR", str(tmp_path)])
    with caplog.at_level("WARNING", "slowfast"):
        run_module._announce(cfg, World(device=torch.device(device)), tmp_path)
    assert (
        len(caplog.messages) == 1
        and "NUM_GPUS is 4" in caplog.text
        and words in caplog.text.replace(" for 1 processes", "")
    )


def test_alone_work_is_done_and_its_mistakes_are_its_own() -> None:
    assert World().run_or_raise_everywhere(lambda: 3) == 3

    def mistaken() -> None:
        raise ConfigError("mine")

    with pytest.raises(ConfigError, match="mine"):
        World().run_or_raise_everywhere(mistaken)


def test_a_mistake_that_all_processes_find_is_told_once(kinetics_folder: Path, tmp_path: Path) -> None:
    settings = [*tiny_settings(kinetics_folder, tmp_path / "out"), "DATA.PATH_TO_DATA_DIR", tmp_path / "nowhere"]
    done = run_net(settings, processes=2)
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1 and f"{tmp_path}/nowhere" in done.stderr
    assert not any("slowfast" in line for line in done.stderr.splitlines() if line.lstrip().startswith("File "))
