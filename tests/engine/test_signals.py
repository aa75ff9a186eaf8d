"""Signals at any moment of a run: progress is saved, one line says how to resume, and the status is 0."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import threading
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from slowfast.cli import train
from slowfast.cli.run import run
from slowfast.cli.setup import load_config
from slowfast.datasets.build import VAL, eval_dataset, train_dataset
from slowfast.engine import checkpoints
from slowfast.engine.checkpoints import find_last
from slowfast.engine.train import Interrupted, Trainer
from slowfast.utils.distributed import World
from slowfast.visualization.html_report.run_files import CONFIG
from tests.conftest import ROOT, command, environment, tiny_settings
from tests.warm_start import Run, run_ranks

pytestmark = pytest.mark.slow

EMPTY = ROOT / "tests" / "empty.yaml"


def settings(data: Path, output: Path, *more: object) -> list[object]:
    """Two epochs of two steps, read in this process."""
    options = ("DATA_LOADER.NUM_WORKERS", 0, "SOLVER.MAX_EPOCH", 2, "TEST.NUM_ENSEMBLE_VIEWS", 1)
    return [*tiny_settings(data, output), *options, *more]


def signal_in(monkeypatch: pytest.MonkeyPatch, where: str, number: signal.Signals, call: int = 1) -> None:
    """Have the signal arrive at the given call of a function, before it does anything."""
    owner, name = where.rsplit(".", 1)
    try:
        target: object = importlib.import_module(owner)
    except ModuleNotFoundError:
        module, cls = owner.rsplit(".", 1)
        target = getattr(importlib.import_module(module), cls)
    real, calls = getattr(target, name), []

    def interrupted(*args: object, **more: object) -> object:
        calls.append(1)
        if len(calls) == call:
            # The handler runs at once, or before the main thread does anything else.
            signal.pthread_kill(threading.main_thread().ident or 0, number)
        return real(*args, **more)

    monkeypatch.setattr(target, name, interrupted)


def run_here(data: Path, output: Path, *more: object) -> int:
    return train.main(["--cfg", str(EMPTY), *map(str, settings(data, output, *more))], run)


def weights(output: Path) -> dict[str, torch.Tensor]:
    path = checkpoints.find_last(output)
    assert path is not None
    state = checkpoints.read_checkpoint(path)
    assert state["epoch"] == 2
    return state["model_state"]


@pytest.fixture(scope="module")
def undisturbed(kinetics_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    output = tmp_path_factory.mktemp("undisturbed")
    run(load_config(EMPTY, settings(kinetics_folder, output, "BN.USE_PRECISE_STATS", True)))
    return weights(output)


@pytest.mark.parametrize(
    "where",
    [
        "slowfast.cli.train.load_config",
        "slowfast.cli.run.init_distributed",
        "slowfast.cli.run._read_indices",
        "slowfast.engine.train.build_model",
        "slowfast.engine.train.load_start_weights",
    ],
)
def test_before_the_first_step_nothing_is_left(
    kinetics_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
) -> None:
    signal_in(monkeypatch, where, signal.SIGTERM)
    assert run_here(kinetics_folder, tmp_path / "out") == 0
    out, err = capsys.readouterr()
    assert out.count("Received SIGTERM before the first step, nothing to save") == 1 and err == ""
    assert not (tmp_path / "out").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than the training."""
    monkeypatch.setattr("slowfast.cli.run.draw_training_curves", lambda *args: {})
    monkeypatch.setattr("slowfast.engine.tasks.classification.ClassificationEvaluator.draw", lambda *args: {})


@pytest.mark.parametrize(
    ("where", "call", "resumes", "number"),
    [
        ("slowfast.engine.train.TrainStep.__call__", 1, "to resume at epoch 1, step 1", signal.SIGTERM),
        ("slowfast.engine.train.TrainStep.__call__", 3, "to resume at epoch 2, step 1", signal.SIGHUP),
        ("slowfast.datasets.loader.SampleLoader.__iter__", 4, "to resume at epoch 2, step 0", signal.SIGTERM),
        ("slowfast.engine.train.recompute_bn_stats", 1, "to resume at epoch 1, step 2", signal.SIGTERM),
        ("slowfast.engine.train.evaluate_split", 1, "to resume at epoch 1, step 2", signal.SIGTERM),
        ("slowfast.engine.checkpoints.save_checkpoint", 2, "to resume at epoch 2, step 0", signal.SIGTERM),
        ("slowfast.engine.checkpoints.clean_up", 3, "to test; the training is complete", signal.SIGTERM),
    ],
)
@pytest.mark.usefixtures("no_plots", "hangup_by_default")
def test_a_training_is_saved_and_resumed(
    undisturbed: dict[str, torch.Tensor],
    kinetics_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
    call: int,
    resumes: str,
    number: signal.Signals,
) -> None:
    in_background = not where.endswith("save_checkpoint")  # otherwise the training would have continued by then
    with monkeypatch.context() as patch:
        signal_in(patch, where, number, call)
        more = ("BN.USE_PRECISE_STATS", True, "TRAIN.CHECKPOINT_ASYNC", in_background)
        assert run_here(kinetics_folder, tmp_path, *more) == 0
    out, err = capsys.readouterr()
    line = f"Received {number.name}, checkpoint saved. Run the same command {resumes}"
    assert [found for found in out.splitlines() if "Received" in found][0].endswith(line), out
    assert out.count("Received") == 1 and err == "" and not (tmp_path / "predictions.csv").exists()
    assert line in (tmp_path / "stdout.log").read_text()
    assert run_here(kinetics_folder, tmp_path, "BN.USE_PRECISE_STATS", True) == 0
    done = weights(tmp_path)
    assert done.keys() == undisturbed.keys() and all(torch.equal(done[key], undisturbed[key]) for key in done)
    assert (tmp_path / "predictions.csv").exists()


@pytest.mark.parametrize(
    ("where", "says", "tested"),
    [
        ("slowfast.engine.test.network_to_test", "during the test", False),
        ("slowfast.engine.test.evaluate_split", "during the test", False),
        ("slowfast.cli.run.draw_training_curves", "after training", False),
        ("slowfast.visualization.sheets.draw_confusion", "while plots were drawn", True),
        ("slowfast.visualization.sheets.draw_contact_sheet", "while plots were drawn", True),
    ],
)
def test_after_the_training_nothing_is_lost(
    kinetics_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
    says: str,
    tested: bool,
) -> None:
    signal_in(monkeypatch, where, signal.SIGTERM)
    assert run_here(kinetics_folder, tmp_path) == 0
    out, err = capsys.readouterr()
    assert out.count("Received SIGTERM") == 1 and f"Received SIGTERM {says}" in out and err == ""
    weights(tmp_path)
    assert (tmp_path / "test_results.json").exists() == tested
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".part", ".tmp")]


def test_statistics_are_whole_after_a_signal(
    kinetics_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint holds the running statistics of two training steps, not precise ones of one batch."""
    signal_in(monkeypatch, "slowfast.engine.forward.ClipForward.prepare", signal.SIGTERM, call=4)
    precise = ("BN.USE_PRECISE_STATS", True, "BN.NUM_BATCHES_PRECISE", 2)
    assert run_here(kinetics_folder, tmp_path, *precise) == 0
    path = checkpoints.find_last(tmp_path)
    assert path is not None and path.name == checkpoints.checkpoint_name(0, 2)
    state = checkpoints.read_checkpoint(path)["model_state"]
    assert state["patch_embed1.norm1.num_batches_tracked"] == 2


def started(line: list[str], marker: str) -> subprocess.Popen[str]:
    """A process whose output has come to a line with the marker."""
    process = subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for text in process.stdout:
        if marker in text:
            return process
    raise AssertionError(f"{marker!r} did not appear: {process.communicate()}")


def test_a_signal_while_libraries_are_imported(kinetics_folder: Path, tmp_path: Path) -> None:
    line = command(settings(kinetics_folder, tmp_path / "out"))
    process = subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not handles(process.pid, signal.SIGTERM):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0 and err == "" and not (tmp_path / "out").exists()
    assert "Received SIGTERM before the first step, nothing to save" in out and len(out.splitlines()) == 1


def handles(process: int, number: signal.Signals) -> bool:
    """Whether a process has its own handler for a signal."""
    caught = re.search(r"SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{process}/status").read_text())
    return bool(caught and int(caught[1], 16) >> (number - 1) & 1)


def test_a_second_signal_ends_at_once(tmp_path: Path, kinetics_folder: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(
        "import sys, time\n"
        "from slowfast.utils.signals import StopSignal\n"
        "from slowfast.cli.train import main\n"
        "from slowfast.engine import checkpoints\n"
        "from slowfast.cli.run import run\n"
        "def save(*args):\n"
        "    print('SAVING', flush=True)\n"
        "    while not stops[-1].seen: time.sleep(0.01)\n"
        "    print(stops[-1].name, 'SEEN', flush=True)\n"
        "    time.sleep(600)\n"
        "def enter(self):\n"
        "    stops.append(self)\n"
        "    return entered(self)\n"
        "entered, StopSignal.__enter__, stops = StopSignal.__enter__, enter, []\n"
        "checkpoints.save_checkpoint = save\n"
        "sys.exit(main(sys.argv[1:], run))\n"
    )
    process = Run(script, command(settings(kinetics_folder, tmp_path / "out"))[2:], environment(), tmp_path)
    for line in ("SAVING", "SIGTERM SEEN"):  # still saving
        process.wait_for(partial(lambda line: line in process.output()[0], line))
        os.kill(process.pid, signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM


def test_under_nohup_a_lost_terminal_is_nothing(kinetics_folder: Path, tmp_path: Path) -> None:
    line = command(settings(kinetics_folder, tmp_path, "SOLVER.MAX_EPOCH", 1, "TEST.ENABLE", False))
    process = started(["nohup", *line], "results in")
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "Received" not in out and checkpoints.find_last(tmp_path) is not None
    assert (tmp_path / CONFIG).exists()


def stop_one(rank: int, data: str, folder: str, precise: bool) -> None:
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=timedelta(seconds=180))
    settings = [*tiny_settings(Path(data), Path(folder)), "BN.USE_PRECISE_STATS", precise, "BN.NUM_BATCHES_PRECISE", 2]
    cfg = load_config(ROOT / "tests" / "empty.yaml", settings, world_size=2)
    trainer = Trainer(cfg, World(rank, 2, gloo=dist.group.WORLD), train_dataset(cfg), eval_dataset(cfg, VAL))
    trainer.log.open(0)
    trainer.stop = SimpleNamespace(seen=rank == 1)  # type: ignore[assignment]
    with pytest.raises(Interrupted):
        trainer._validate()
    trainer._save()
    trainer._finish_saving()
    trainer.log.close()
    dist.destroy_process_group()
    os._exit(0)  # the loader's workers are daemons


@pytest.mark.parametrize("precise", [False, True])
def test_all_processes_stop(kinetics_folder: Path, tmp_path: Path, precise: bool) -> None:
    run_ranks(stop_one, str(kinetics_folder), str(tmp_path), precise)
    assert find_last(tmp_path) is not None
