"""Command line: exit statuses and messages on stderr."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slowfast.cli import train
from slowfast.config.node import ConfigNode
from slowfast.errors import DataError
from slowfast.utils import distributed
from tests.conftest import ROOT

S16 = str(ROOT / "configs/K400/K400_MLP_S16x4.yaml")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """As if started without torchrun, from another folder."""
    for name in ("RANK", "WORLD_SIZE", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    logging.getLogger("slowfast.config").setLevel(logging.NOTSET)  # processes other than the first lower it


def never(cfg: ConfigNode) -> None:
    raise AssertionError("the run started despite a mistake in the config")


def test_a_run_gets_the_frozen_config_and_ends_with_0(alone: Path) -> None:
    seen: list[ConfigNode] = []
    arguments = ["--cfg", S16, "NUM_GPUS", "0", "MORPH.SEGMENT_DIM", "[14,28,28,49]", "SOLVER.MAX_EPOCH=20"]
    assert train.main(arguments, seen.append) == 0
    assert seen[0].is_frozen() and (seen[0].NUM_GPUS, seen[0].SOLVER.MAX_EPOCH) == (0, 20)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "--cfg"),
        (["--cfg"], "--cfg"),
        (["--cgf", S16], "--cfg"),
        (["NUM_GPUS", "0"], "--cfg"),
        (["--cfg", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["--cfg", S16, S16], "is a second file. Name one file"),
        (["--cfg", S16, "--cfg", S16], "is a second file. Name one file"),
        (["--cfg", S16, "NUM_GPUS"], "has no value"),
        (["--cfg", S16, "NUM_GPU", "0"], "NUM_GPUS"),
        (["--cfg", S16, "NUM_GPUS", "-1"], "NUM_GPUS (-1) must be from 0"),
        (["--cfg", S16, "MODEL.MODEL_NAME", "Morph"], "MorphMLP"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    alone: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert train.main(arguments, never) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert part in err


def test_mistakes_found_in_the_run_are_told_by_every_process(
    alone: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(cfg: ConfigNode) -> None:
        raise DataError("no video could be read")

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert train.main(["--cfg", S16], run) == 2
    assert capfd.readouterr().err == "error: no video could be read\n"


def test_a_mistake_in_the_config_is_told_by_one_process(
    alone: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for rank, of_node, lines in (("0", "0", 1), ("1", "1", 0), ("2", "0", 1)):  # of each node
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", of_node)
        assert train.main(["--cfg", S16], never) == 2  # a batch of 64 for 3 processes
        assert capfd.readouterr().err.count("\n") == lines


def test_the_batch_must_suit_the_gpus_that_will_be_used(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "usable_gpus", lambda wanted: min(wanted, 3))
    assert train.main(["--cfg", S16], never) == 2


def test_anything_else_is_a_traceback_and_status_1(alone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def run(cfg: ConfigNode) -> None:
        raise RuntimeError("a fault of the program")

    assert train.main(["--cfg", S16], run) == 1
    err = capfd.readouterr().err
    assert "Traceback" in err and "a fault of the program" in err


def test_ctrl_c(alone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def run(cfg: ConfigNode) -> None:
        raise KeyboardInterrupt

    assert train.main(["--cfg", S16], run) == 130
    assert "Traceback" not in capfd.readouterr().err


def run_net(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools/run_net.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)


def test_the_tool_runs_from_any_folder_and_explains_itself(tmp_path: Path) -> None:
    done = run_net(tmp_path, "--help")
    assert done.returncode == 0 and done.stderr == ""
    for part in ("--cfg configs/K400/K400_MLP_S16x4.yaml TEST.NUM_ENSEMBLE_VIEWS 4", "one file", "overrides"):
        assert part in done.stdout


def test_the_tool_answers_a_typo_with_the_nearest_key(tmp_path: Path) -> None:
    done = run_net(tmp_path, "--cfg", S16, "TEST.NUM_ENSEMBLE_VIEW", "4")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "error: overrides: unknown key TEST.NUM_ENSEMBLE_VIEW. Did you mean TEST.NUM_ENSEMBLE_VIEWS?\n"
    )
