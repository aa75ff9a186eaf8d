"""SIGTERM to one of two processes during validation: both save and stop, and none waits forever."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from slowfast.cli.setup import load_config
from slowfast.datasets.build import VAL, eval_dataset, train_dataset
from slowfast.engine.checkpoints import find_last
from slowfast.engine.train import Interrupted, Trainer
from slowfast.utils.distributed import World
from tests.conftest import ROOT, tiny_settings

pytestmark = pytest.mark.slow


def stop_one(rank: int, data: str, folder: str, precise: bool) -> None:
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=timedelta(seconds=40))
    settings = [*tiny_settings(Path(data), Path(folder)), "BN.USE_PRECISE_STATS", precise, "BN.NUM_BATCHES_PRECISE", 2]
    cfg = load_config(ROOT / "tests" / "empty.yaml", settings, world_size=2)
    trainer = Trainer(cfg, World(rank, 2, gloo=dist.group.WORLD), train_dataset(cfg), eval_dataset(cfg, VAL))
    trainer.log, trainer.progress = trainer._open_reports()
    trainer.stop = SimpleNamespace(seen=rank == 1)  # type: ignore[assignment]
    with pytest.raises(Interrupted):
        trainer._validate()
    trainer._save()
    trainer._finish_saving()
    trainer._close_reports()
    dist.destroy_process_group()
    os._exit(0)  # the loader's workers are daemons


@pytest.mark.parametrize("precise", [False, True])
def test_all_processes_stop(kinetics_folder: Path, tmp_path: Path, precise: bool) -> None:
    mp.spawn(stop_one, (str(kinetics_folder), str(tmp_path), precise), nprocs=2)
    assert find_last(tmp_path) is not None
