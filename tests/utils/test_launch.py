"""One process per GPU without torchrun: environment, exit statuses, and forwarded signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from slowfast.engine import checkpoints
from slowfast.utils import launch
from slowfast.utils.launch import Launcher
from tests.conftest import ROOT, command, environment, tiny_settings
from tests.warm_start import Run, run_script

pytestmark = pytest.mark.slow


def in_each(code: str) -> list[str]:
    return [sys.executable, "-c", f"import os, signal, sys, time\nrank = int(os.environ['RANK'])\n{code}"]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_GRACE", 0.5)
    monkeypatch.setattr(launch, "_TERMINATION", 1.0)


def test_processes_know_their_place_and_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_PORT", "1")  # of another run; not used
    code = (
        "from slowfast.utils.distributed import init_distributed, shut_down_distributed\n"
        "world = init_distributed(num_gpus=0, timeout=180)\n"
        "both = world.gather([(world.rank, world.size, os.environ['LOCAL_RANK'])])\n"
        f"open({str(tmp_path)!r} + f'/{{rank}}', 'w').write(repr(both))\n"
        "shut_down_distributed(world)\n"
        "tasks = [open(f'/proc/self/task/{one}/comm').read() for one in os.listdir('/proc/self/task')]\n"
        "assert not any('gloo' in name for name in tasks), tasks\n"
    )
    assert Launcher(2, in_each(code)).run() == 0
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["[(0, 2, '0'), (1, 2, '1')]"] * 2
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("ignored", [False, True])
def test_the_first_failure_ends_the_others(ignored: bool, capfd: pytest.CaptureFixture[str]) -> None:
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if ignored else ""
    assert Launcher(3, in_each(f"{ignore}time.sleep(0.1)\nif rank == 1: sys.exit(2)\ntime.sleep(600)")).run() == 2
    assert capfd.readouterr().err == ""


def test_a_killed_process_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    code = "if rank == 1: os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(600)"
    assert Launcher(2, in_each(code)).run() == 1
    assert capfd.readouterr().err == "error: rank 1 was killed by SIGKILL\n"


SCRIPT = """
import os, sys
from slowfast.cli import run as module
from slowfast.cli.train import main
from slowfast.utils.signals import prepare_process
prepare_process()
module.processes_to_launch = lambda gpus, wanted: 0 if "RANK" in os.environ else 2
sys.exit(main(sys.argv[1:], module.run))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("hangup_by_default")
def test_signals_are_passed_on(number: signal.Signals, tmp_path: Path) -> None:
    code = (
        f"signal.signal({number}, lambda *_: sys.exit(0))\n"
        f"open({str(tmp_path)!r} + f'/{{rank}}', 'w').close()\n"
        "time.sleep(600)"
    )

    def send_when_both_run() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=send_when_both_run, daemon=True).start()
    assert Launcher(2, in_each(code)).run() == 0


def test_a_signal_saves_the_training(kinetics_folder: Path, tmp_path: Path) -> None:
    settings = [*tiny_settings(kinetics_folder, tmp_path / "out"), "DATA_LOADER.NUM_WORKERS", 0, "TEST.ENABLE", False]
    script, *words = command([*settings, "SOLVER.MAX_EPOCH", 500])[1:]
    started = Run(Path(script), ["--processes", "2", *words], environment(), tmp_path)
    started.wait_for(lambda: "train 3/" in started.output()[0])
    os.kill(started.pid, signal.SIGTERM)
    status, (out, err) = started.wait(), started.output()
    assert status == 0, (out, err)
    assert out.count("Received") == 1 and "Received SIGTERM, checkpoint saved. Run the same command to resume" in out
    assert err == ""
    assert checkpoints.find_last(tmp_path / "out") is not None


def test_a_user_error_keeps_its_status_and_is_reported_once(kinetics_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "weights.pyth"
    broken.write_bytes(b"PK\x03\x04")
    settings = [*tiny_settings(kinetics_folder, tmp_path / "out"), "TRAIN.CHECKPOINT_FILE_PATH", broken]
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    words = ["--cfg", str(ROOT / "tests" / "empty.yaml"), *map(str, settings), "DATA_LOADER.NUM_WORKERS", "0"]
    done = run_script(script, words, {**environment(), "PYTHONPATH": str(ROOT)}, timeout=240)
    assert done.returncode == 2, done
    assert done.stderr.count("error:") == 1 and "weights.pyth" in done.stderr and "Traceback" not in done.stderr


def test_the_end_of_the_launcher_ends_the_processes(tmp_path: Path) -> None:
    code = (
        "from slowfast.utils.signals import prepare_process\n"
        "prepare_process()\n"
        f"open({str(tmp_path)!r} + f'/{{rank}}', 'w').write(str(os.getpid()))\n"
        "time.sleep(600)"
    )
    script = f"from slowfast.utils.launch import Launcher\nLauncher(2, {in_each(code)!r}).run()"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.DEVNULL)
    files = [tmp_path / "0", tmp_path / "1"]
    until = time.monotonic() + 60
    while not all(file.exists() and file.read_text() for file in files) and time.monotonic() < until:
        time.sleep(0.05)
    process.kill()
    process.wait()
    while any(Path("/proc", file.read_text()).exists() for file in files) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(Path("/proc", file.read_text()).exists() for file in files)
