"""Help texts, loading a config and rejecting a typo import neither PyTorch nor decoders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from slowfast.cli.main import COMMANDS
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

HEAVY = {"torch", "numpy", "cv2", "av", "matplotlib", "boto3", "botocore", "huggingface_hub", "safetensors"}
SCRIPT = f"""
import sys
from slowfast.cli.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
print("imported", *sorted({HEAVY!r} & set(sys.modules)))
sys.exit(status)
"""
S16 = "K400/K400_MLP_S16x4"


def start(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    environment["PYTHONPATH"] = str(ROOT)
    line = [sys.executable, "-c", code, *arguments]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: str) -> None:
    done = start(SCRIPT, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: slowfast {command} ") and done.stdout.endswith("\nimported\n")


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("", "no command given"),
        ("trian --cfg x", "unknown command trian. Did you mean train?"),
        ("--hlep", "unknown option --hlep. Did you mean --help?"),
        ("predict --cgf x clip.mp4", "unknown option --cgf. Did you mean --cfg?"),
        ("export --cfg x", "one of the arguments --out --triton is required"),
        ("prepare videos --out a --workers 0", "--workers: '0' is not an integer from 1 to 1024"),
        ("train --cfg K400/K400_MLP_S16x5", "no such file or shipped config. Did you mean K400/K400_MLP_S16x4?"),
        (f"train --cfg {S16} NUM_GPU 0", "unknown key NUM_GPU. Did you mean NUM_GPUS?"),
        (f"test --cfg {S16} NUM_GPUS many", "NUM_GPUS: expected an integer, got 'many'"),
        (f"run --cfg {S16} DATA.STD [0,1,1]", "DATA.STD"),
        (f"run --cfg {S16} TEST.SINGLE_CROP centre", "Did you mean 'center'?"),
        (f"run --cfg {S16} SOLVER.WARMUP_EPOCHS 1000", "must be smaller than SOLVER.MAX_EPOCH"),
        (f"train --cfg {S16} MODEL.MODEL_NAME MorphMPL", "Did you mean 'MorphMLP'?"),
        (f"train --cfg {S16} TRAIN.DATASET kinetcs", "Did you mean 'kinetics'?"),
        (f"test --cfg {S16} AUG.AA_TYPE rand-m11", "AUG.AA_TYPE: unknown value 'rand-m11'"),
        (f"features --cfg {S16} --split tset", "invalid choice: 'tset'"),
        (f"predict --cfg {S16} clip.mp4 TEST.BATCH_SIZE 0", "TEST.BATCH_SIZE (0) must be from 1"),
    ],
)
def test_mistakes_import_nothing_heavy(line: str, answer: str) -> None:
    done = start(SCRIPT, *line.split())
    assert (done.returncode, done.stdout) == (2, "imported\n")
    assert answer in done.stderr and done.stderr.count("\n") == 1


def test_env_imports_pytorch_but_no_decoders() -> None:
    done = start(SCRIPT, "env")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "imported numpy torch"), done.stderr


def test_run_net_starts_light() -> None:
    tool = ROOT / "tools" / "run_net.py"
    code = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    trace = f"import atexit, sys; atexit.register(lambda: print('imported', *sorted({HEAVY!r} & set(sys.modules))))\n"
    for words, status in ((["--help"], 0), (["--cfg", S16, "NUM_GPU", "0"], 2)):
        done = start(trace + code, str(tool), *words)
        assert done.returncode == status and done.stdout.endswith("imported\n")


def test_merging_a_config_imports_nothing_heavy() -> None:
    modules = [f"slowfast.config.{path.stem}" for path in (ROOT / "slowfast" / "config").glob("[a-z]*.py")]
    code = (
        f"import sys, {', '.join(modules)}\n"
        "from slowfast.config.defaults import merge_config\n"
        f"cfg = merge_config({S16!r}, ['NUM_GPUS', 0])\n"
        "assert cfg.MODEL.MODEL_NAME == 'MorphMLP'\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    done = start(code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_slow_tools_are_aliases_that_exist() -> None:
    names = {path.stem for path in (ROOT / "tools").glob("*.py")}
    checkout_only = {"benchmark", "make_demo_data", "run_net"}
    assert names - checkout_only, "no aliases"
    for name in sorted(names - checkout_only):
        text = Path(ROOT / "tools" / f"{name}.py").read_text(encoding="utf-8")
        command = text.partition('main(["')[2].partition('"')[0]
        assert command in COMMANDS, name
