"""OUTPUT_DIR: rejected runs change nothing, and runs that share a folder do not disturb each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from slowfast.cli import train
from slowfast.cli.run import run
from slowfast.cli.run_folder import RunFolder
from slowfast.cli.setup import load_config
from slowfast.engine import checkpoints
from slowfast.utils.distributed import World
from slowfast.utils.locks import TESTING, TRAINING, FolderLock, exclusive_lock
from slowfast.visualization.html_report.run_files import CONFIG, TEST_CONFIG
from tests.conftest import ROOT, run_net, tiny_settings

pytestmark = pytest.mark.slow

EMPTY = ROOT / "tests" / "empty.yaml"
Snapshot = dict[str, bytes | None]


def settings(data: Path, output: Path, *more: object) -> list[object]:
    return [*tiny_settings(data, output), "DATA_LOADER.NUM_WORKERS", 0, "SOLVER.MAX_EPOCH", 1, *more]


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the training."""
    monkeypatch.setattr("slowfast.cli.run.draw_training_curves", lambda *args: {})
    monkeypatch.setattr("slowfast.engine.tasks.classification.ClassificationEvaluator.draw", lambda *args: {})


@pytest.fixture(scope="module")
def finished(kinetics_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a training run."""
    output = tmp_path_factory.mktemp("finished")
    run(load_config(EMPTY, settings(kinetics_folder, output, "TEST.ENABLE", False)))
    return output


def snapshot(folder: Path) -> Snapshot:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture
def files(tmp_path: Path, finished: Path) -> Iterator[dict[str, str]]:
    """Unusable files by keyword."""
    (tmp_path / "broken.pyth").write_bytes(b"PK\x03\x04 not a checkpoint")
    (tmp_path / "broken.csv").write_text("only a path\n")
    torch.save({"model_state": {"weight": torch.zeros(3)}}, tmp_path / "other.pyth")
    yield {word: str(tmp_path / word) for word in ("broken.pyth", "other.pyth", "missing.pyth")} | {
        "config": str(finished / CONFIG)
    }


REFUSED = [
    ("training", "MORPH.LAYERS [1,2,1,1]"),  # the checkpoint there is another network's
    ("training", "SOLVER.OPTIMIZING_METHOD sgd SOLVER.BASE_LR 0.1"),
    ("training", "MODEL.EMA True"),
    ("training", "TRAIN.AUTO_RESUME False"),
    (
        "training",
        "SOLVER.MAX_EPOCH 2 DISTILL.ENABLE True DISTILL.TEACHER_CFG {config} DISTILL.TEACHER_CHECKPOINT {broken.pyth}",
    ),
    ("training", "TRAIN.DATASET kinetcs"),
    ("training", "DATA.PATH_TO_DATA_DIR /nowhere"),
    ("training", "TRAIN.BATCH_SIZE 512"),
    ("training", "MODEL.NUM_CLASSES 3"),
    ("test", "TEST.CHECKPOINT_FILE_PATH {missing.pyth}"),
    ("test", "TEST.CHECKPOINT_FILE_PATH {broken.pyth}"),
    ("test", "TEST.CHECKPOINT_FILE_PATH {other.pyth}"),
    ("test", "MORPH.LAYERS [1,2,1,1]"),
    ("test", "TEST.DATASET kinetcs"),
    ("test", "DATA.PATH_TO_DATA_DIR /nowhere"),
    ("new training", "TRAIN.CHECKPOINT_FILE_PATH {missing.pyth}"),
    ("new training", "TRAIN.CHECKPOINT_FILE_PATH {other.pyth}"),
    ("new training", "MORPH.PRETRAIN_PATH {missing.pyth}"),
    ("new training", "MORPH.PRETRAIN_PATH {broken.pyth}"),
    ("new training", "DATA.PATH_TO_DATA_DIR /nowhere"),
    ("new test", "TEST.CHECKPOINT_FILE_PATH {broken.pyth}"),
]


@pytest.mark.parametrize(("kind", "mistake"), REFUSED)
def test_a_refused_run_changes_nothing(
    finished: Path,
    kinetics_folder: Path,
    tmp_path: Path,
    files: dict[str, str],
    capfd: pytest.CaptureFixture[str],
    kind: str,
    mistake: str,
) -> None:
    output = tmp_path / "deep" / "new" if "new" in kind else finished
    for word, path in files.items():
        mistake = mistake.replace(f"{{{word}}}", path)
    line = settings(kinetics_folder, output, "TRAIN.ENABLE", "training" in kind)
    before = snapshot(finished)
    assert train.main(["--cfg", str(EMPTY), *map(str, line), *mistake.split()], run) == 2
    err = capfd.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert snapshot(finished) == before and not (tmp_path / "deep").exists()


def test_a_run_that_fails_to_start_leaves_nothing(
    kinetics_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("slowfast.engine.train.build_model", fail)
    line = ["--cfg", str(EMPTY), *map(str, settings(kinetics_folder, tmp_path / "out"))]
    assert train.main(line, run) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_test_keeps_the_config_of_the_training(finished: Path, kinetics_folder: Path) -> None:
    before = (finished / CONFIG).read_bytes()
    log = (finished / "stdout.log").read_text()
    for views in (1, 2):
        line = settings(kinetics_folder, finished, "TRAIN.ENABLE", False, "TEST.NUM_ENSEMBLE_VIEWS", views)
        run(load_config(EMPTY, line))
        assert (finished / CONFIG).read_bytes() == before
        again = load_config(finished / TEST_CONFIG)
        assert again.TEST.NUM_ENSEMBLE_VIEWS == views and not again.TRAIN.ENABLE
    assert (finished / "stdout.log").read_text().startswith(log)


def test_a_test_by_itself_writes_its_config(kinetics_folder: Path, tmp_path: Path) -> None:
    for views in (1, 2):  # that of an earlier test is replaced
        line = settings(kinetics_folder, tmp_path, "TRAIN.ENABLE", False, "TEST.NUM_ENSEMBLE_VIEWS", views)
        run(load_config(EMPTY, line))
        assert yaml.safe_load((tmp_path / CONFIG).read_text())["TEST"]["NUM_ENSEMBLE_VIEWS"] == views
    assert not (tmp_path / TEST_CONFIG).exists() and not list(tmp_path.glob(".claimed*"))


def test_the_log_begins_before_the_run(kinetics_folder: Path, tmp_path: Path) -> None:
    """Messages logged while the config and the indices are read are also in stdout.log."""
    line = settings(kinetics_folder, tmp_path, "TRAIN.ENABLE", False, "DATA.DECODING_BACKEND", "decord")
    assert train.main(["--cfg", str(EMPTY), *map(str, line)], run) == 0
    log = (tmp_path / "stdout.log").read_text()
    assert log.index("DECODING_BACKEND") < log.index("results in") < log.index(": testing random weights")


def test_a_second_test_is_refused_and_a_test_beside_a_training_is_not(
    finished: Path, kinetics_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = [*settings(kinetics_folder, finished, "TRAIN.ENABLE", False)]
    before = snapshot(finished)
    with exclusive_lock(finished, TESTING):
        done = run_net(line)
        assert done.returncode == 2 and "another run is testing there" in done.stderr
    assert snapshot(finished) == before
    with exclusive_lock(finished, TRAINING):
        done = run_net(line)
        assert done.returncode == 0, done.stderr
        assert (finished / "predictions.csv").exists()


def test_a_training_waits_for_a_test_before_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = load_config(EMPTY, ["OUTPUT_DIR", str(tmp_path)])
    tries: list[int] = []

    def acquire(self: FolderLock) -> bool:
        tries.append(1)
        return len(tries) > 3

    with RunFolder(cfg, World()) as folder:
        monkeypatch.setattr(FolderLock, "acquire", acquire)
        monkeypatch.setattr("slowfast.cli.run_folder.time.sleep", lambda seconds: None)
        folder.wait_for_tests()
    assert len(tries) == 4


def test_a_lock_that_its_holder_removed_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is removed between opening and locking it would lock nothing."""
    lock = FolderLock(tmp_path, TRAINING)
    real, opened = FolderLock._open, []

    def open_and_lose(self: FolderLock) -> object:
        file = real(self)
        if not opened:
            (tmp_path / TRAINING).unlink()
        opened.append(file)
        return file

    monkeypatch.setattr(FolderLock, "_open", open_and_lose)
    assert lock.acquire() and len(opened) == 2 and (tmp_path / TRAINING).exists()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_are_not_tidied_by_a_refused_run(finished: Path, kinetics_folder: Path) -> None:
    stale = checkpoints.checkpoint_folder(finished) / checkpoints.checkpoint_name(0, 1)
    stale.write_bytes((checkpoints.checkpoint_folder(finished) / checkpoints.checkpoint_name(1, 0)).read_bytes())
    line = ["--cfg", str(EMPTY), *map(str, settings(kinetics_folder, finished)), "MORPH.LAYERS", "[1,2,1,1]"]
    try:
        assert train.main(line, run) == 2 and stale.exists()
    finally:
        stale.unlink()


def test_warnings_of_the_config_are_in_the_log(
    kinetics_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """They are reported before there is a folder for the log."""
    file, output = tmp_path / "published.yaml", tmp_path / "out"
    file.write_text("BN:\n  GLOBAL_SYNC: False\n")
    line = ["--cfg", str(file), *map(str, settings(kinetics_folder, output, "TEST.ENABLE", False))]
    assert train.main(line, run) == 0
    for text in (capfd.readouterr().out, (output / "stdout.log").read_text()):
        [warning] = [one for one in text.splitlines() if "BN.GLOBAL_SYNC" in one]
        assert f"{file}: " in warning
