"""Calibration: find the largest threshold at which event-driven inference agrees with dense inference.

Notation: K frames of a video, P pixels per side of the network's input, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST
from slowfast.datasets.types import Failure, FailureLedger, failure_of
from slowfast.engine.forward import ClipForward
from slowfast.engine.state import tested_weights
from slowfast.engine.test import network_to_test
from slowfast.errors import DataError, UserError
from slowfast.event_driven.activity import Savings, Summary, VideoActivity, summarize
from slowfast.event_driven.engine import EventDrivenInference
from slowfast.event_driven.readers import read_frames
from slowfast.event_driven.sources import Sources
from slowfast.event_driven.video_frames import FrameResize
from slowfast.models.linear import pack_linears

# Candidates in units of the normalized frame: 0, then 12 per decade. A change from black to white is about 4.
GRID = (0.0, *(float(f"{10 ** (n / 12):.2g}") for n in range(-36, 9)))


@dataclass(frozen=True)
class Goal:
    """Required agreement with dense inference; exactly one of the two is set.

    Args:
        top1: Minimum fraction of frames with the same top-1 class, 0 to 1.
        logit_error: Largest mean over classes and frames of |difference of logits| / largest |logit|.
    """

    top1: float | None = None
    logit_error: float | None = None

    def is_met(self, by: Summary) -> bool:
        """Check the goal against metrics that include a comparison."""
        assert by.top1_agreement is not None and by.logit_error_mean is not None
        if self.logit_error is not None:
            return by.logit_error_mean <= self.logit_error
        return self.top1 is None or by.top1_agreement >= 100 * self.top1

    def __str__(self) -> str:
        if self.logit_error is not None:
            return f"a logit error of at most {self.logit_error:g}"
        return f"top-1 agreement of at least {100 * (self.top1 or 0):g} %"


@dataclass(frozen=True)
class Candidate:
    """Threshold and the metrics measured with it."""

    threshold: float
    summary: Summary


class Calibration:
    """Measurement of thresholds on the same decoded frames; the other EVENT settings come from the config.

    Decodes the videos and runs dense inference on construction.

    Attributes:
        untrained: True if the weights are random.

    Raises:
        DataError: If no video can be read.
    """

    def __init__(self, cfg: ConfigNode, device: torch.device, sources: Sources) -> None:
        self.cfg, self.device = cfg, device
        self.model = network_to_test(cfg, device)
        self.untrained = tested_weights(cfg) is None
        pack_linears(self.model)
        self.forward = ClipForward.from_config(cfg, device, TEST)
        self.ledger = FailureLedger(sources.count)
        self.videos = self._read(sources)
        self.dense = [torch.cat([self._dense(chunk) for chunk in self._chunks(video)]) for video in self.videos]

    def _read(self, sources: Sources) -> list[np.ndarray]:
        """Return the frames of each video at the network's resolution, uint8 (K, P, P, 3)."""
        transform, videos = FrameResize.from_config(self.cfg), []
        self.ledger.add(sources.refused)
        for source in sources.videos:
            record = source.record
            try:
                frames, missing = read_frames(source, transform, self.cfg.EVENT.MAX_FRAMES)
            except UserError:
                raise
            except Exception as error:
                self.ledger.add([failure_of(record.index, record.name, error)])
                continue
            videos.append(frames)
            self.ledger.add([Failure(record.index, record.name, missing, lost=False)] if missing else [])
        if not videos:
            raise DataError(
                "none of the videos can be read" if sources.count else "there are no videos to calibrate on"
            )
        return videos

    def _chunks(self, video: np.ndarray) -> list[torch.Tensor]:
        """Split uint8 (K, P, P, 3) into chunks of EVENT.CHUNK frames."""
        return list(torch.from_numpy(video).split(self.cfg.EVENT.CHUNK))

    def _normalize(self, chunk: torch.Tensor) -> torch.Tensor:
        """Return float (K, 3, P, P) on the device."""
        frames: torch.Tensor = self.forward.prepare(chunk[:, None])
        return frames

    @torch.inference_mode()
    def _dense(self, chunk: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(self._normalize(chunk))
        return logits.float()

    def measure(self, threshold: float) -> Candidate:
        """Run event-driven inference with a threshold and compare it with dense inference."""
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.merge_from_list(["EVENT.THRESHOLD", threshold])
        engine = EventDrivenInference.from_config(cfg, self.model)
        activities = []
        for number, (video, dense) in enumerate(zip(self.videos, self.dense, strict=True)):
            engine.reset()
            activities.append(activity := VideoActivity(str(number), Savings.of(engine.network)))
            for chunk, logits in zip(self._chunks(video), dense.split(self.cfg.EVENT.CHUNK), strict=True):
                changes = engine.detect(self._normalize(chunk)[:, None], [0])
                results = engine.compute(changes)
                activity.add(results.active[:, 0], results.macs[:, 0], changes.mask[:, 0], results.logits[:, 0], logits)
        return Candidate(threshold, summarize(activities))


def find_threshold(
    measure: Callable[[float], Candidate], goal: Goal, grid: Sequence[float] = GRID
) -> tuple[Candidate, list[Candidate]]:
    """Find the largest threshold that meets a goal, by bisection.

    Agreement is assumed to fall as the threshold rises. The returned candidate was measured and meets the goal in any
    case.

    Args:
        measure: Measures a threshold.
        goal: Required agreement.
        grid: Candidate thresholds in ascending order.

    Returns:
        The candidate, and all measured candidates in ascending order.

    Raises:
        UserError: If not even the smallest threshold meets the goal.
    """
    measured: dict[int, Candidate] = {}
    met, missed = -1, len(grid)
    while missed - met > 1:
        middle = (met + missed) // 2
        measured[middle] = measure(grid[middle])
        if goal.is_met(measured[middle].summary):
            met = middle
        else:
            missed = middle
    if met < 0:
        best = measured[0].summary
        raise UserError(
            f"no threshold gives {goal}: at {grid[0]:g} top-1 agreement is {best.top1_agreement:.2f} % and the logit "
            f"error {best.logit_error_mean:.2g}. Lower the goal or set EVENT.PRECISION to float32"
        )
    return measured[met], [measured[index] for index in sorted(measured)]
