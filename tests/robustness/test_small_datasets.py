"""A few unreadable files do not end a training on a small dataset; too many end it with one message and a list."""

from __future__ import annotations

from pathlib import Path

import pytest

from slowfast.datasets.types import Failure, FailureLedger, allowed_failures
from tests.conftest import run_net, tiny_settings
from tests.csv_files import read_reasons

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("share", "total", "allowed"),
    [
        *((0.01, 62, 3), (0.01, 299, 3), (0.01, 300, 3), (0.01, 1000, 10), (0.5, 62, 31)),  # the floor
        *((0.01, 4, 3), (0.01, 3, 2), (0.01, 1, 0), (1.0, 10, 9)),  # never all
        *((0.0, 62, 0), (0.0, 100_000, 0)),  # none if the user sets it so
    ],
)
def test_how_many_may_fail(share: float, total: int, allowed: int) -> None:
    assert allowed_failures(share, total) == allowed
    ledger = FailureLedger(total)
    ledger.add(Failure(index, f"{index}.mp4", "why") for index in range(allowed))
    assert ledger.complaint(share) is None
    if allowed < total:
        ledger.add([Failure(allowed, "one_more.mp4", "why")])
        assert f"{allowed + 1} of {total} training videos are unreadable (limit: {allowed}, DATA.MAX_FAILED)" in str(
            ledger.complaint(share)
        )


def _folder(kinetics_folder: Path, tmp_path: Path, broken: int) -> Path:
    """The 16 training clips, the first ones cut off after their header."""
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "val", "test"):
        lines = (kinetics_folder / f"{split}.csv").read_text().splitlines()
        for number, line in enumerate(lines):
            name = line.rsplit(" ", 1)[0]
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            content = (kinetics_folder / name).read_bytes()
            (data / name).write_bytes(content[:300] if split == "train" and number < broken else content)
        (data / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return data


def _train(data: Path, output: Path, processes: int = 1, *more: object) -> tuple[int, str, list[str]]:
    """Status, stderr and the list of failures of a training."""
    settings = [*tiny_settings(data, output), "SOLVER.MAX_EPOCH", 1, "TEST.ENABLE", False, *more]
    done = run_net(settings, processes)
    return done.returncode, done.stderr, list(read_reasons(output / "failed_train.csv"))


@pytest.mark.parametrize("workers", [0, 8])
def test_three_of_sixteen_are_left_out(kinetics_folder: Path, tmp_path: Path, workers: int) -> None:
    data = _folder(kinetics_folder, tmp_path, broken=3)
    status, said, listed = _train(data, tmp_path / "out", 1, "DATA_LOADER.NUM_WORKERS", workers)
    assert status == 0, said
    assert len(listed) == 3


@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (1, 8), (2, 1)])
@pytest.mark.parametrize("broken", [5, 16])
def test_more_end_the_run(kinetics_folder: Path, tmp_path: Path, broken: int, processes: int, workers: int) -> None:
    data, output = _folder(kinetics_folder, tmp_path, broken), tmp_path / "out"
    status, said, listed = _train(data, output, processes, "DATA_LOADER.NUM_WORKERS", workers)
    assert status == 2
    (line,) = [line for line in said.splitlines() if "Stopping: " in line]
    assert f"of 16 training videos are unreadable (limit: 3, DATA.MAX_FAILED): {listed[0]}: " in line
    assert line.endswith(f"Full list: {output / 'failed_train.csv'}")
    assert 4 <= len(listed) <= broken
    assert "Traceback" not in said
