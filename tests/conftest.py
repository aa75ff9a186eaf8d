"""Shared fixtures: a small Kinetics-format folder of real clips, and the settings of a tiny network for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from demo_data.build import build
from demo_data.settings import DemoSettings
from slowfast.config.defaults import get_cfg
from slowfast.config.keys import KEYS, SECTIONS
from slowfast.config.node import ConfigNode
from slowfast.utils import screen
from slowfast.utils.cpu import usable_cores
from tests.warm_start import SILENCE, Run, run_script

ROOT = Path(__file__).resolve().parents[1]

# No test depends on timing, so slow machines pass too.
settings.register_profile("any_machine", deadline=None)
settings.load_profile("any_machine")


MAX_WORKERS = 8  # each worker process needs about 1 GiB


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of worker processes of `pytest -n auto`: one more than cores, since tests also wait."""
    return min(usable_cores() + 1, MAX_WORKERS)


def pytest_configure(config: pytest.Config) -> None:
    """Set what PyTorch and the package read from the environment; worker processes of pytest-xdist get one thread."""
    os.environ.setdefault("SLOWFAST_EVENT_KERNELS", "compiled")  # measure nothing
    screen.SILENCE = SILENCE
    if config.getoption("numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Escape captured file names that are not UTF-8: pytest-xdist cannot send them from worker processes."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_encodable, value))
    return value


@pytest.fixture
def restored_keys() -> Iterator[None]:
    """Remove the config sections that a test adds."""
    sections, keys = list(SECTIONS), dict(KEYS)
    yield
    SECTIONS[:] = sections
    KEYS.clear()
    KEYS.update(keys)


@pytest.fixture(scope="session")
def kinetics_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 training, 8 validation and 8 test clips of 8 classes, 24 frames of 32 x 36."""
    folder = tmp_path_factory.mktemp("data") / "kinetics"
    build(folder, DemoSettings(train=16, val=8, test=8, size=32, frames=24), workers=1)
    return folder


def tiny_settings(data: Path, output: Path) -> list[object]:
    """Overrides for a MorphMLP that trains in milliseconds a step."""
    return [
        *("DATA.PATH_TO_DATA_DIR", str(data), "DATA.PATH_PREFIX", str(data), "OUTPUT_DIR", str(output)),
        *("DATA.NUM_FRAMES", 4, "DATA.SAMPLING_RATE", 2, "DATA.TRAIN_CROP_SIZE", 32, "DATA.TEST_CROP_SIZE", 32),
        *("DATA.TRAIN_JITTER_SCALES", "[32,40]", "MODEL.NUM_CLASSES", 8, "MORPH.LAYERS", "[1,1,1,1]"),
        *("MORPH.EMBED_DIMS", "[16,16,16,16]", "MORPH.SEGMENT_DIM", "[8,4,2,1]", "NUM_GPUS", 0),
        *("TRAIN.BATCH_SIZE", 8, "SOLVER.MAX_EPOCH", 3, "SOLVER.OPTIMIZING_METHOD", "adamw", "SOLVER.BASE_LR", 1e-3),
        *("DATA_LOADER.NUM_WORKERS", 1, "LOG_PERIOD", 1, "TEST.NUM_ENSEMBLE_VIEWS", 2, "TEST.NUM_SPATIAL_CROPS", 3),
        *("TRAIN.EVAL_PERIOD", 1, "TRAIN.CHECKPOINT_PERIOD", 1, "TRAIN.AUTO_RESUME", True),
    ]


@pytest.fixture
def tiny_cfg(kinetics_folder: Path, tmp_path: Path) -> ConfigNode:
    """A mutable config of the tiny network on the small folder, results in tmp_path."""
    cfg = get_cfg()
    cfg.merge_from_list(tiny_settings(kinetics_folder, tmp_path / "out"))
    return cfg


def command(overrides: Sequence[object], processes: int = 1) -> list[str]:
    """The command line of a run, under torchrun for several processes."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    empty = ROOT / "tests" / "empty.yaml"
    return [*start, str(ROOT / "tools" / "run_net.py"), "--cfg", str(empty), *map(str, overrides)]


def run_net(overrides: Sequence[object], processes: int = 1, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run it to its end with one thread per process, so that parallel tests do not slow each other down."""
    script, *words = command(overrides)[1:]
    return run_script(Path(script), words, environment(), timeout, processes)


def start_net(overrides: Sequence[object], folder: Path) -> Run:
    """Start it as `run_net` does; its output is in a folder."""
    script, *words = command(overrides)[1:]
    folder.mkdir(exist_ok=True)
    return Run(Path(script), words, environment(), folder)


def run_cold(overrides: Sequence[object], processes: int = 1, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run it in a new interpreter, and several processes under torchrun, which ends all if one of them fails."""
    line = command(overrides, processes)
    return subprocess.run(line, capture_output=True, text=True, timeout=timeout, env=environment())


def environment() -> dict[str, str]:
    """The environment of a run."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def hangup_by_default() -> Iterator[None]:
    """Have SIGHUP end a process, this one and its children, also where the tests run under nohup, which ignores it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the jobs of slowfast.prepare in this process, since starting workers takes seconds."""
    from slowfast.prepare import jobs  # imported late: most tests do not need it

    monkeypatch.setattr(jobs, "run_in_processes", lambda function, todo, _: ((job, function(job)) for job in todo))


def cached(folder: Path) -> list[Path]:
    """Return everything in a private cache except lock files."""
    return [path for path in folder.iterdir() if path.suffix != ".lock"]
