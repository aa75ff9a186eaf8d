"""Example optimizer in a user file: Lion as in its paper, with a custom config section."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, environment, tiny_settings
from tests.warm_start import run_script

pytestmark = pytest.mark.slow

EXAMPLE = ROOT / "examples" / "lion.py"


def run(data: Path, output: Path, *overrides: object) -> subprocess.CompletedProcess[str]:
    settings = [*tiny_settings(data, output), "SOLVER.OPTIMIZING_METHOD", "lion", "SOLVER.MAX_EPOCH", 1, *overrides]
    options = ["--import", EXAMPLE, "--cfg", ROOT / "tests" / "empty.yaml"]
    words = [*map(str, options), *map(str, settings)]
    return run_script(ROOT / "tools" / "run_net.py", words, environment(), timeout=180)


def test_it_trains_and_its_keys_are_checked(kinetics_folder: Path, tmp_path: Path) -> None:
    done = run(kinetics_folder, tmp_path / "out", "LION.BETAS", "[0.95,0.98]", "TEST.ENABLE", False)
    assert done.returncode == 0, done.stderr
    assert "BETAS:\n  - 0.95\n  - 0.98" in (tmp_path / "out" / "config.yaml").read_text()
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert any(row["split"] == "train" for row in rows)
    wrong = run(kinetics_folder, tmp_path / "wrong", "LION.BETAS", "[0.95,1]")
    assert wrong.returncode == 2
    assert "LION.BETAS ([0.95, 1.0]): each value must be at least 0 and below 1" in wrong.stderr


def test_two_steps_are_those_of_the_paper(restored_keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    from lion import OPTIMIZER_REGISTRY, Lion

    del OPTIMIZER_REGISTRY._obj_map["lion"]
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = Lion([weight], lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    expected, momentum = weight.detach().clone(), torch.zeros(2)
    for grad in (torch.tensor([3.0, -1.0]), torch.tensor([-0.001, 4.0])):
        weight.grad = grad.clone()
        optimizer.step()
        expected -= 0.1 * (torch.sign(0.9 * momentum + 0.1 * grad) + 0.5 * expected)
        momentum = 0.99 * momentum + 0.01 * grad
        torch.testing.assert_close(weight.detach(), expected)
