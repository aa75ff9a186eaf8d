"""Runs of several processes: signals, processes that do not respond, and variables left in the shell."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.conftest import command, environment, tiny_settings
from tests.warm_start import Run, run_script

pytestmark = pytest.mark.slow


def test_a_signal_while_waiting_for_the_others(kinetics_folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
    place = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    script, *words = command(tiny_settings(kinetics_folder, tmp_path / "out"))[1:]
    started = Run(Path(script), words, environment() | place, tmp_path)
    started.wait_for(lambda: _is_listening(port))
    os.kill(started.pid, signal.SIGTERM)
    status, (out, err) = started.wait(), started.output()
    assert status == 0 and err == "" and not (tmp_path / "out").exists()
    assert "Received SIGTERM before the first step, nothing to save" in out


def _is_listening(port: int) -> bool:
    return any(one.laddr.port == port and one.status == psutil.CONN_LISTEN for one in psutil.net_connections("tcp"))


def test_a_variable_left_in_the_shell_ends_a_run_with_status_2(kinetics_folder: Path, tmp_path: Path) -> None:
    script, *words = command(tiny_settings(kinetics_folder, tmp_path / "out"))[1:]
    done = run_script(Path(script), words, environment() | {"WORLD_SIZE": "2"}, timeout=180)
    assert (done.returncode, done.stdout) == (2, "") and not (tmp_path / "out").exists()
    assert done.stderr == "error: WORLD_SIZE is 2 but RANK is not set. Unset WORLD_SIZE, or start with torchrun\n"


@contextmanager
def training(data: Path, output: Path, timeout: float) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A long training of two processes under torchrun that is past its first steps, and its ranks."""
    script = output.parent / "run.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from slowfast.utils.signals import prepare_process\n"
        "prepare_process()\n"
        "from slowfast.cli.train import main\n"
        "from slowfast.cli.run import run\n"
        "sys.exit(main(sys.argv[1:], run))\n"
    )
    options = ("SOLVER.MAX_EPOCH", 100000, "TRAIN.EVAL_PERIOD", 10**6, "TRAIN.CHECKPOINT_PERIOD", 10**6)
    loading = ("DATA_LOADER.NUM_WORKERS", 0, "DIST_TIMEOUT", timeout)
    line = command([*tiny_settings(data, output), *options, *loading], processes=2)
    line = [str(script) if word.endswith("run_net.py") else word for word in line]
    log = (output.parent / "stderr").open("w")
    process = subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, stderr=log, text=True)
    ranks: list[psutil.Process] = []
    try:
        assert process.stdout is not None
        assert any("train 3/" in text for text in process.stdout), (output.parent / "stderr").read_text()
        ranks = [one for one in psutil.Process(process.pid).children() if str(script) in one.cmdline()]
        assert len(ranks) == 2
        yield process, ranks
    finally:
        log.close()
        for one in ranks:
            if one.is_running():
                one.kill()
        process.kill()
        process.communicate()


def test_a_signal_to_torchrun_saves_and_leaves_no_ranks(kinetics_folder: Path, tmp_path: Path) -> None:
    """torchrun exits with its own status and traceback; test_processes_follow_their_launcher covers SIGKILL."""
    with training(kinetics_folder, tmp_path / "out", timeout=180) as (process, ranks):
        process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(ranks, timeout=120)
        assert not alive
        assert process.wait(timeout=240) == 1
    assert "Received SIGTERM, checkpoint saved" in (tmp_path / "out" / "stdout.log").read_text()
    assert list((tmp_path / "out" / "checkpoints").glob("checkpoint_epoch_*.pyth"))


def test_a_stopped_rank_ends_the_others(kinetics_folder: Path, tmp_path: Path) -> None:
    with training(kinetics_folder, tmp_path / "out", timeout=20) as (process, ranks):
        stopped = next(one for one in ranks if one.environ()["RANK"] == "1")
        other = next(one for one in ranks if one is not stopped)
        stopped.suspend()
        began = time.monotonic()
        other.wait(timeout=240)
        assert time.monotonic() - began > 10
        with contextlib.suppress(psutil.NoSuchProcess):  # torchrun kills it after 30 s
            stopped.kill()
        assert process.wait(timeout=240) == 1
    lines = (tmp_path / "stderr").read_text().splitlines()
    assert any("another of the 2 processes did not respond for 20 s" in line for line in lines), lines


def test_processes_follow_their_launcher(tmp_path: Path) -> None:
    """Also before they have joined: the launcher may be killed while they import their libraries."""
    code = "import time; from slowfast.utils.signals import prepare_process; prepare_process(); print(1, flush=True)"
    child = [sys.executable, "-c", f"{code}; time.sleep(600)"]
    launch = f"import subprocess; subprocess.run({child!r})"
    there = {**environment(), "TORCHELASTIC_RUN_ID": "1", "RANK": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    launcher = subprocess.Popen([sys.executable, "-c", launch], env=there, stdout=subprocess.PIPE)
    assert launcher.stdout is not None and launcher.stdout.readline() == b"1\n"
    [rank] = psutil.Process(launcher.pid).children()
    launcher.kill()
    _, alive = psutil.wait_procs([rank], timeout=120)
    assert not alive
    launcher.communicate()
