"""Jobs of `slowfast submit` on submitit's local executor, and the script for sbatch."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from slowfast.cli import submit
from slowfast.cli.submit import Task, minutes
from slowfast.engine import checkpoints
from tests.conftest import ROOT, tiny_settings

SCRIPT = ROOT / "examples" / "slurm.sbatch"


def words(data: Path, output: Path, *more: object) -> list[str]:
    settings = (*tiny_settings(data, output), "DATA_LOADER.NUM_WORKERS", 0, "TEST.ENABLE", False, *more)
    return ["train", "--cfg", str(ROOT / "tests" / "empty.yaml"), *map(str, settings)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "needs one of the commands train, test, run after --; none is given"),
        (["--", "predict"], "train, test, run after --; got predict"),
        (["--gpus", "1", "--processes", "2", "--", "train"], "--processes is for nodes without GPUs"),
        (["--gpus", "2", "--", "train", "--cfg", "CFG", "NUM_GPUS", "0"], "NUM_GPUS is 0. Set NUM_GPUS 2"),
        (["--nodes", "3", "--", "train", "--cfg", "CFG"], "TRAIN.BATCH_SIZE"),  # 64
        (["--", "train", "--cfg", "CFG", "SOLVER.BASE_LR", "x"], "SOLVER.BASE_LR"),
        (["--time", "soon", "--", "train"], "soon is not a time limit such as 90"),
        (["--slurm", "high", "--", "train"], "high is not KEY=VALUE"),
        (["--status", "/nowhere"], "/nowhere has no jobs of slowfast submit: no such file"),
        (["--", "train", "--cfg", "CFG", "MORPH.PRETRAIN_PATH", ""], "The job was not submitted: "),  # no sbatch here
    ],
)
def test_user_errors(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    line = [str(ROOT / "tests" / "empty.yaml") if word == "CFG" else word for word in line]
    assert submit.main(line) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and message in err and err.count("\n") == 1


def test_without_submitit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert submit.main(["--", "train"]) == 2
    assert 'pip install "slowfast[slurm]", or use examples/slurm.sbatch' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"),
    [("90", 90), ("90:30", 91), ("12:00:00", 720), ("2-00", 2880), ("1-02:30", 1590), ("0:59:01", 60)],
)
def test_time_limits(text: str, value: int) -> None:
    assert minutes(text) == value


def test_the_parameters_of_sbatch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import submitit

    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    line = ["--nodes", "4", "--gpus", "8", "--partition", "gpu", "--time", "60", "--slurm", "nice=5", "--account", "us"]
    chosen = submit.parser().parse([*line, "--mem", "100", "--cpus", "7", "--", "train"])
    executor = submitit.AutoExecutor(tmp_path, cluster="slurm")
    executor.update_parameters(**submit._parameters(chosen, 8))
    text = executor._executor._make_submission_file_text("COMMAND", "1").splitlines()
    options = ("nodes=4", "gpus-per-node=8", "ntasks-per-node=8", "partition=gpu", "time=60", "nice=5", "account=us")
    for option in (*options, "mem=100GB", "cpus-per-task=7", "requeue", "signal=USR2@120", "open-mode=append"):
        assert f"#SBATCH --{option}" in text


@pytest.mark.extensive
@pytest.mark.slow
def test_a_job_is_preempted_and_resumed(
    kinetics_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes get SIGUSR2, as from Slurm: they save together, and the job is put back into the queue and ends."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    output, follow = tmp_path / "out", submit._follow

    def preempt(job: Any) -> int:
        """Interrupt the job after its first steps, then follow it to its end."""
        log, until = output / "metrics.jsonl", time.monotonic() + 240
        while not (log.exists() and '"train"' in log.read_text()):
            assert time.monotonic() < until and job.state == "RUNNING", job.stderr()
            time.sleep(0.02)
        for task in psutil.Process(int(job.job_id)).children():
            task.send_signal(signal.SIGUSR2)
        return follow(job)

    monkeypatch.setattr(submit, "_follow", preempt)
    settings = ("SOLVER.MAX_EPOCH", 20, "TRAIN.EVAL_PERIOD", 20, "TRAIN.CHECKPOINT_PERIOD", 20)
    line = words(kinetics_folder, output, *settings, "DATA_LOADER.DRAW_SAMPLES", 0)
    assert submit.main(["--local", "--processes", "2", "--grace", "60", "--", *line]) == 0
    [log] = (output / "slurm").glob("*_0_log.out")
    text, job = log.read_text(), log.name.partition("_")[0]
    assert text.count("2 processes on CPU") == 2 and f"Requeued job {job}" in text, text
    assert "Received SIGTERM, checkpoint saved" in text and "Resuming from " in text
    last = checkpoints.find_last(output)
    assert last is not None and last.name == "checkpoint_epoch_00020.pyth"
    out = capsys.readouterr().out
    assert f"Submitted job {job}: 1 x 2 processes" in out and f"job {job} finished. Logs: {log}" in out
    assert submit.main(["--status", str(output)]) == 0
    assert str(log) in capsys.readouterr().out


def test_a_failed_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "_environment", staticmethod(lambda: dict(os.environ)))
    with pytest.raises(subprocess.CalledProcessError) as error:
        Task(["no-such-command"], 1)()
    assert error.value.returncode == 2


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_the_script_for_sbatch(tmp_path: Path, number: signal.Signals, requeued: bool) -> None:
    """With stand-ins for the commands of Slurm and torchrun, which note how they are called."""
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    calls = tmp_path / "calls"
    commands = {
        "scontrol": '[ "$1" = requeue ] || printf "first\\nsecond\\n"',
        "scancel": 'kill -TERM "$(cat "$0.pid")"',
        "srun": 'shift; exec "$@"',
        "torchrun": f'trap "echo saved >> {calls}; exit 0" TERM; cd {tmp_path}; echo $$ > pid; mv pid scancel.pid\n'
        "while :; do sleep 0.05; done",
    }
    for name, text in commands.items():
        path = tmp_path / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {calls}\n{text}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2"}
    env |= {"SLURM_JOB_NODELIST": "x", "SLURM_GPUS_ON_NODE": "8"}
    job = subprocess.Popen(["bash", str(SCRIPT), "train", "--cfg", "a b.yaml"], env=env)
    until = time.monotonic() + 120
    while not (tmp_path / "scancel.pid").exists():
        assert job.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    job.send_signal(number)
    assert job.wait(120) == 0
    lines = calls.read_text().splitlines()
    assert "--nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=first:20007 --rdzv-id=7" in lines[2]
    assert lines[2].endswith("-m slowfast train --cfg a b.yaml")
    assert lines[3:] == ["scancel --signal=TERM 7", "saved", *(["scontrol requeue 7"] if requeued else [])]
