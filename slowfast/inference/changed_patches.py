"""Event-driven inference on one video file: its changed patches as a video, and the computation it saves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST
from slowfast.engine.forward import ClipForward
from slowfast.errors import DataError
from slowfast.event_driven.activity import Savings, Summary, VideoActivity, summarize
from slowfast.event_driven.annotate import AnnotatedVideos
from slowfast.event_driven.engine import EventDrivenInference
from slowfast.event_driven.feed import Feed
from slowfast.event_driven.frame_resize import FrameResize
from slowfast.event_driven.messages import Batch, Closed, Opened
from slowfast.event_driven.sources import find_files

MAX_FRAMES = 300  # frames processed per video, unless EVENT.MAX_FRAMES is smaller


class ChangedPatches:
    """Event-driven inference on video files, with the computed patches outlined.

    Args:
        cfg: Config with the EVENT settings.
        model: evMLP with its weights.
        names: Class names.
        device: Device of the model.

    Attributes:
        limit: Largest number of frames that are processed.
    """

    def __init__(self, cfg: ConfigNode, model: nn.Module, names: Sequence[str], device: torch.device) -> None:
        self.cfg, self.model, self.names = cfg, model, names
        self.limit = min(cfg.EVENT.MAX_FRAMES or MAX_FRAMES, MAX_FRAMES)
        self._resize = FrameResize.from_config(cfg)
        self._forward = replace(ClipForward.from_config(cfg, device, TEST), images=True)

    def run(
        self, path: Path, name: str, target: Path, stopped: Callable[[], bool], threshold: float | None = None
    ) -> Summary:
        """Process the first frames of a video and compare each with dense inference.

        Args:
            path: Video file.
            name: Its name in messages.
            target: Annotated video to write.
            stopped: Returns True to end early.
            threshold: Change threshold; None for EVENT.THRESHOLD.

        Returns:
            The computed and the saved operations.

        Raises:
            DataError: If no frame can be read.
        """
        engine = EventDrivenInference.from_config(self._settings(threshold), self.model)
        source = find_files([path], self.cfg.DATA.DECODING_THREADS).videos[0]
        feed = Feed(
            *(engine, self._resize, self._forward, 1, self.cfg.EVENT.CHUNK, self.limit),
            timeout=self.cfg.DATA_LOADER.TIMEOUT,
        )
        activity, failure = VideoActivity(name, Savings.of(engine.network)), ""
        with AnnotatedVideos(engine.network, {source.record.index: target}, self.names) as annotated:
            for message in feed.messages([source], stopped):
                if isinstance(message, Opened):
                    annotated.open(message)
                elif isinstance(message, Batch):
                    self._compute(engine, message, activity, annotated)
                elif isinstance(message, Closed) and message.failure is not None:
                    failure = message.failure.reason
        if not activity.frames:
            raise DataError(f"{name}: {failure or 'no frame can be decoded'}")
        return summarize([activity])

    def _settings(self, threshold: float | None) -> ConfigNode:
        if threshold is None:
            return self.cfg
        copy = self.cfg.clone()
        copy.defrost()
        copy.merge_from_list(["EVENT.THRESHOLD", threshold])
        return copy

    @torch.inference_mode()
    def _compute(
        self, engine: EventDrivenInference, batch: Batch, activity: VideoActivity, annotated: AnnotatedVideos
    ) -> None:
        results = engine.compute(batch.changes)
        dense = engine.run_dense(batch.frames.flatten(0, 1))
        mask = batch.changes.mask[:, 0]
        activity.add(results.active[:, 0], results.macs[:, 0], mask, results.logits[:, 0], dense)
        annotated.write(batch, results.logits)
