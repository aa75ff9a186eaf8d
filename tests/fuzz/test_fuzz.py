"""Fuzzing program with a small budget; `python tests/fuzz/fuzz.py` runs the full one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.fuzz import CRASH, HANG, WRONG, Child, fuzz
from tests.fuzz.kinds import KINDS, REFUSED, USED
from tests.fuzz.signals import stop_runs
from tests.warm_start import warm_context

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def warm() -> None:
    """Have processes start as forks of one that has imported PyTorch."""
    warm_context()


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_inputs_neither_crash_nor_hang_nor_give_wrong_values(kind: str) -> None:
    outcome = fuzz(kind, inputs=40, seed=20261128)
    assert not outcome.failures
    assert outcome.total == 40 and outcome.counts[REFUSED]


@pytest.mark.parametrize("kind", KINDS)
def test_whole_inputs_are_used(kind: str, tmp_path: Path) -> None:
    checker = KINDS[kind]()
    found = {path.name: checker.check(path, path) for path in checker.make(tmp_path)}
    assert found == {name: REFUSED if name.startswith("hostile") else USED for name in found}


@pytest.mark.extensive
def test_a_stopped_run_ends_and_resumes_to_the_same_weights() -> None:
    assert not stop_runs(1, seed=3).failures


def test_crashes_hangs_and_wrong_values_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program itself: a child that dies, raises, gives wrong values or does not answer is counted as such."""
    source = """
import os, time
from tests.fuzz import kinds
class Bad:
    mutations = kinds.BINARY
    def check(self, path, original):
        if path.name == "die": os._exit(3)
        if path.name == "raise": raise KeyError("x")
        if path.name == "wrong": raise kinds.WrongValue("y")
        if path.name == "hang": time.sleep(600)
kinds.KINDS["bad"] = Bad
"""
    (tmp_path / "sitecustomize.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    monkeypatch.setattr("tests.fuzz.fuzz.START_METHOD", "spawn")  # imports the above
    child = Child("bad")
    try:
        monkeypatch.setattr("tests.fuzz.fuzz.TIME_LIMIT", 240.0)  # includes the imports of a new process
        found = [child.check(Path(name), Path("o"))[0] for name in ("raise", "wrong", "die", "wrong")]
        monkeypatch.setattr("tests.fuzz.fuzz.TIME_LIMIT", 1.0)
        found.append(child.check(Path("hang"), Path("o"))[0])
    finally:
        child.close()
    assert found == [CRASH, WRONG, CRASH, WRONG, HANG]
