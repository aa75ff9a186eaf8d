"""Declarations of all config keys, by subject.

`slowfast.config.defaults.get_cfg` builds the config tree from them.
"""

from __future__ import annotations

from slowfast.config.key import Key, Section
from slowfast.config.keys import data, dvs, event, model, networks, run, solver

SECTIONS: list[Section] = [
    *(run.RUN, run.TRAIN, run.TEST),
    *(data.DATA, dvs.DVS, data.DATA_LOADER),
    *(data.AUG, data.MIXUP),
    *(solver.SOLVER, solver.BN),
    *(model.MODEL, model.DISTILL),
    *(networks.MORPH, networks.CONVMLP, networks.EAT, networks.EVMLP, networks.EVENT2VEC),
    *(networks.EFFICIENTNET, networks.REGNET),
    event.EVENT,
    *(run.TENSORBOARD, run.TRACKING, run.WANDB, run.MLFLOW, run.PROFILE),
]
# By dotted name, such as "TRAIN.ENABLE".
KEYS: dict[str, Key] = {}


def add_section(section: Section) -> None:
    """Add a section, such as the keys of a custom network, to all configs created afterwards.

    Raises:
        ValueError: If a section of this name exists.
    """
    if any(other.name == section.name for other in SECTIONS):
        raise ValueError(f"{section.name}: a section of this name exists")
    SECTIONS.append(section)
    _index(section)


def _index(section: Section) -> None:
    KEYS.update((section.full_name(name), key) for name, key in section.keys.items())


for _section in SECTIONS:
    _index(_section)
