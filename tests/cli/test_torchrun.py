"""`slowfast torchrun`: errors of torchrun are one line; failed processes and commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT, environment
from tests.warm_start import run_script

ALONE = ("--standalone", "--nproc_per_node=1")
FAILING = """import os, sys
os.kill(os.getpid(), 9) if sys.argv[1] == "kill" else sys.exit(int(sys.argv[1]))
"""


def torchrun(tmp_path: Path, *words: str) -> tuple[int, list[str]]:
    """Return the exit status and the errors in standard error; there is no traceback."""
    script = tmp_path / "slowfast_.py"
    script.write_text("import sys\nfrom slowfast.cli.main import main\nsys.exit(main())\n")
    env = environment() | {"PYTHONPATH": str(ROOT)}
    done = run_script(script, ["torchrun", *words], env, timeout=120)
    assert "Traceback" not in done.stderr
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--nnodes=2", "--rdzv_backend=c10d", "--rdzv_endpoint=127.0.0.1:9", "train"),
            "no connection to the rendezvous at 127.0.0.1:9. Check that the node of this address runs the same command",
        ),
        (("--nnodes=many", "--standalone", "train"), "torchrun: invalid literal"),
        (("--nnodes=2",), "torchrun: the following arguments are required"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    options = ("--rdzv_conf=is_host=false,read_timeout=1",) if "train" in words else ()
    status, lines = torchrun(tmp_path, *options, *words)
    assert status == 2 and len(lines) == 1 and message in lines[0], lines


@pytest.mark.parametrize(
    ("kind", "status", "message"), [("0", 0, ""), ("2", 2, ""), ("3", 1, "status 3"), ("kill", 1, "killed by SIGKILL")]
)
def test_failed_processes(tmp_path: Path, kind: str, status: int, message: str) -> None:
    """A process that ends with status 2 has reported a user error itself."""
    (tmp_path / "failing.py").write_text(FAILING)
    found, lines = torchrun(tmp_path, *ALONE, str(tmp_path / "failing.py"), kind)
    assert found == status and len(lines) == bool(message) and message in "".join(lines), lines
