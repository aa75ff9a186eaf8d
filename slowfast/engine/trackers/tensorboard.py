"""TensorBoard event files."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slowfast.config.node import ConfigNode
from slowfast.engine.trackers.base import TRACKER_REGISTRY, NamedImage, RunInfo, Tracker


@TRACKER_REGISTRY.register(name="tensorboard")
class TensorBoard(Tracker):
    """Event files with curves, hparams, the config as text, and images.

    A resumed run adds a file to the folder that hides the points of the steps to be repeated.

    Args:
        folder: Folder of the event files.
        run: Description of the run.

    Raises:
        ImportError: If TensorBoard is not installed.
    """

    def __init__(self, folder: Path, run: RunInfo) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise ImportError(
                f'TensorBoard cannot be imported ({error}). Run pip install "slowfast[tensorboard]"'
            ) from error
        _silence_writer_thread()
        self._writer: Any = SummaryWriter(str(folder), purge_step=run.first_step)
        self._end_of_session: Any = None
        self._describe(run)

    @classmethod
    def from_config(cls, cfg: ConfigNode, run: RunInfo) -> TensorBoard:
        """Build for TENSORBOARD.LOG_DIR, by default the folder tensorboard in OUTPUT_DIR."""
        return cls(Path(cfg.TENSORBOARD.LOG_DIR or run.folder / "tensorboard"), run)

    def _describe(self, run: RunInfo) -> None:
        """Write the config, and the hparams with the curves to compare."""
        from torch.utils.tensorboard.summary import hparams

        self._writer.add_text("config", "".join(f"    {line}\n" for line in run.config_text.splitlines()), 0)
        # `add_hparams` would start a second run in a separate folder.
        start, session, self._end_of_session = hparams(dict(run.hparams), dict.fromkeys(run.curves, 0))
        for summary in (start, session):
            self._writer.file_writer.add_summary(summary)
        self._writer.flush()

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def images(self, tag: str, images: Sequence[NamedImage], step: int) -> None:
        for number, one in enumerate(images, 1):
            # TensorBoard shows no captions: the tag holds the name.
            name = tag if len(images) == 1 else f"{tag}/{number:03d} {one.name}"
            self._writer.add_image(name, one.image, step, dataformats="HWC")

    def close(self, outcome: str) -> None:
        self._writer.file_writer.add_summary(self._end_of_session)
        self._writer.close()


def _silence_writer_thread() -> None:
    """Do not print disk errors of TensorBoard's thread: the next call of the writer raises them."""
    previous = threading.excepthook
    if getattr(previous, "silences_tensorboard", False):
        return

    def hook(args: threading.ExceptHookArgs, /) -> None:
        of_writer = type(args.thread).__module__.partition(".")[0] == "tensorboard"
        if not (of_writer and isinstance(args.exc_value, OSError)):
            previous(args)

    hook.silences_tensorboard = True  # type: ignore[attr-defined]
    threading.excepthook = hook
