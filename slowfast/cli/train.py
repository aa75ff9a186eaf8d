"""Commands that train and test: `slowfast train`, `slowfast test`, `slowfast run` and tools/run_net.py."""

from __future__ import annotations

from collections.abc import Sequence

from slowfast.cli import setup
from slowfast.cli.setup import RUN_NET, RunCommand

TRAIN = RunCommand(
    "slowfast train",
    "Train a model, then test it if TEST.ENABLE. A run that was stopped is resumed from its last checkpoint.",
    (
        "slowfast train --cfg K400/K400_MLP_S16x4 --out output/k400 DATA.PATH_TO_DATA_DIR kinetics",
        "torchrun --nproc_per_node=2 -m slowfast train --cfg my_config.yaml NUM_GPUS 2",
        "slowfast train --cfg my_config.yaml --import my_network.py",
    ),
    ("TRAIN.ENABLE", True),
)
TEST = RunCommand(
    "slowfast test",
    "Test a trained model on the test split: TEST.CHECKPOINT_FILE_PATH, else the checkpoint of the output folder.",
    (
        "slowfast test --cfg K400/K400_MLP_S16x4 --weights weights.pyth DATA.PATH_TO_DATA_DIR kinetics",
        "slowfast test --cfg output/k400/config.yaml TEST.NUM_ENSEMBLE_VIEWS 4",
    ),
    ("TRAIN.ENABLE", False, "TEST.ENABLE", True),
    tests_only=True,
)
RUN = RunCommand(
    "slowfast run",
    RUN_NET.purpose,
    (
        "slowfast run --cfg K400/K400_MLP_S16x4 TEST.NUM_ENSEMBLE_VIEWS 4",
        "slowfast run --cfg ImageNet/EVMLP EVENT.ENABLE True DATA.PATH_PREFIX folder_of_videos",
    ),
)


def train(arguments: Sequence[str]) -> int:
    """Train and return the exit status."""
    return setup.main(arguments, command=TRAIN)


def test(arguments: Sequence[str]) -> int:
    """Test and return the exit status."""
    return setup.main(arguments, command=TEST)


def run(arguments: Sequence[str]) -> int:
    """Do what the config enables and return the exit status."""
    return setup.main(arguments, command=RUN)
