"""Runs on two machines that are disturbed: the same results as on one machine."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from slowfast.engine import checkpoints
from tests.conftest import ROOT, environment, run_net, tiny_settings
from tests.two_nodes import missing, two_nodes

pytestmark = [pytest.mark.slow, pytest.mark.extensive, pytest.mark.skipif(bool(missing()), reason=missing())]

# torchrun notices a lost node after 3 s instead of 15.
FAST = "--rdzv_conf=keep_alive_interval=1,keep_alive_max_attempt=3"


def settings(data: Path, output: Path) -> list[object]:
    """Four epochs of two steps, and a test."""
    shared = (*tiny_settings(data, output), "DATA_LOADER.NUM_WORKERS", 0, "SOLVER.MAX_EPOCH", 4, "TRAIN.EVAL_PERIOD", 2)
    return [*shared, "DATA_LOADER.DRAW_SAMPLES", 0, "BN.NORM_TYPE", "sync_batchnorm", "DIST_TIMEOUT", 60]


def test_a_node_is_killed_and_comes_back(kinetics_folder: Path, tmp_path: Path) -> None:
    """torchrun restarts the other one; both resume from the last checkpoint and reach the results of one machine."""
    output = tmp_path / "out"
    words, log = settings(kinetics_folder, output), tmp_path / "log"
    with two_nodes(tmp_path) as (first, second):
        # The hardware of a node may differ.
        others = [*words, "DATA_LOADER.PIN_MEMORY", False]
        runs = [first.train(words, log, "--max_restarts=1", FAST), second.train(others, log, "--max_restarts=1", FAST)]
        _wait_for(checkpoints.checkpoint_folder(output) / "checkpoint_epoch_00001.pyth", log)
        second.cut_power()
        runs[1] = second.train(others, log, "--max_restarts=1", FAST)
        assert [run.wait(120) for run in runs] == [0, 0], log.read_text()
    text = log.read_text()
    assert "another of the 2 processes (at 10.77.0.2) exited; see its own error in the output of its node" in text
    assert "Resuming from" in text and "Traceback" not in text
    alone = tmp_path / "alone"
    done = run_net([*words, "OUTPUT_DIR", alone], processes=2)
    assert done.returncode == 0, done.stderr
    ends = [checkpoints.read_last(folder) for folder in (output, alone)]
    one, other = (end[1]["model_state"] for end in ends if end is not None)
    assert all(torch.equal(one[key], other[key]) for key in other)
    for name in ("predictions.csv", "per_class.csv"):
        assert (output / name).read_text() == (alone / name).read_text()
    assert not list(output.glob(".shared*"))


def _wait_for(path: Path, log: Path) -> None:
    until = time.monotonic() + 90
    while not path.exists():
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.02)


def test_a_slow_node_and_a_cut_cable() -> None:
    """Neither changes the weights; a run that the cable ends states its cause and is resumed."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "fuzz" / "nodes.py", "slow", "cable"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    undisturbed, slow, cable = done.stdout.splitlines()[:3]
    assert undisturbed.endswith("'same']") and slow.endswith("'same']") and cable.endswith("'same']")
    assert slow.startswith("['slow', [0, 0], ") and "did not respond for 40 s (DIST_TIMEOUT)" in cable
