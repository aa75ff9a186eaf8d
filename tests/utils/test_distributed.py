"""Several processes: devices of ranks, and errors that are reported once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from slowfast.cli import run as run_module
from slowfast.cli.setup import load_config
from slowfast.errors import ConfigError, IndexFileError
from slowfast.utils.distributed import World, init_distributed
from tests.conftest import ROOT, run_cold, tiny_settings

pytestmark = pytest.mark.slow

EMPTY = ROOT / "tests" / "empty.yaml"


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
    done = run_cold(settings, processes=2)
    assert done.returncode == 1  # torchrun's own
    assert done.stderr.count("error: ") == 1 and f"{tmp_path}/nowhere" in done.stderr
    assert not any("slowfast" in line for line in done.stderr.splitlines() if line.lstrip().startswith("File "))
