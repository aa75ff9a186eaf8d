"""Interface of trackers, which record the metrics, config and images of a run in another program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError
from slowfast.utils.registry import ClassRegistry

# Outcomes of a run, see `Tracker.close`.
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"


@dataclass(frozen=True)
class RunInfo:
    """Description of a run for a tracker. Secrets in addresses are redacted.

    Attributes:
        name: Name of the run.
        project: Name of the project (TRACKING.PROJECT).
        folder: OUTPUT_DIR.
        config: All config keys by dotted name, with plain values.
        config_text: The config as YAML.
        hparams: Config keys used to compare runs, with their values.
        curves: Tags of the curves whose last values compare runs, such as ``val/top1_acc``.
        first_step: First step to record: points that an earlier run recorded from this step on are replaced. None if
            the run only adds a test.
        run_id: What `Tracker.run_id` returned when the run was started, if it is resumed; "" for a new run.
    """

    name: str
    project: str
    folder: Path
    config: Mapping[str, Any]
    config_text: str
    hparams: Mapping[str, Any] = field(default_factory=dict)
    curves: Sequence[str] = ()
    first_step: int | None = None
    run_id: str = ""


@dataclass(frozen=True)
class NamedImage:
    """Image uint8 (H, W, 3) RGB with a name and a caption."""

    image: np.ndarray
    name: str
    caption: str = ""


class Tracker(ABC):
    """Base class of trackers. One object records one run, in the main process only.

    A subclass is registered by the name that TRACKING.BACKENDS selects it with::

        @TRACKER_REGISTRY.register(name="lines")
        class Lines(Tracker):
            def __init__(self, path):
                self.file = path.open("a")

            @classmethod
            def from_config(cls, cfg, run):
                return cls(run.folder / "lines.txt")

            def scalars(self, values, step):
                print(step, dict(values), file=self.file)

    An exception of a method is logged as one warning, and the run continues without the tracker.
    """

    @classmethod  # noqa: B027 - an optional hook
    def check(cls, cfg: ConfigNode) -> None:
        """Raise ConfigError if the tracker cannot be used, for example without its package. Called first."""

    @classmethod
    @abstractmethod
    def from_config(cls, cfg: ConfigNode, run: RunInfo) -> Self:
        """Start a run, or resume the one with the ID `run.run_id`, and record the config."""

    @property
    def run_id(self) -> str:
        """Identifier for resuming the run; "" if the tracker needs none."""
        return ""

    @abstractmethod
    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Record points of curves.

        Args:
            values: Values by tag, such as ``train/loss``; some may be NaN or infinite.
            step: Training steps done.
        """

    def images(self, tag: str, images: Sequence[NamedImage], step: int) -> None:  # noqa: B027 - an optional hook
        """Record images.

        Args:
            tag: Name of the series, such as ``test/confusion_matrix``.
            images: One or several images.
            step: Training steps done.
        """

    def close(self, outcome: str) -> None:  # noqa: B027 - an optional hook
        """Write everything that is still in memory.

        Args:
            outcome: ``FINISHED``, ``STOPPED`` by a signal, or ``FAILED`` with an exception.
        """


TRACKER_REGISTRY: ClassRegistry[Tracker] = ClassRegistry("TRACKER", Tracker)  # type: ignore[type-abstract]


def require_package(package: str, backend: str, extra: str) -> None:
    """Raise ConfigError, which names the extra, if the package of a tracker is not installed."""
    if find_spec(package) is None:
        raise ConfigError(
            f"TRACKING.BACKENDS {backend} needs the package {package}, which is not installed. Run "
            f'pip install "slowfast[{extra}]"'
        )
