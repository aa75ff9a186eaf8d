"""The largest threshold whose answers agree with the whole network's as well as is wanted.

K frames of a video, P x P pixels that the network sees of a frame, C classes.
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
from slowfast.engine.test import network_to_test
from slowfast.errors import DataError, UserError
from slowfast.event_driven.activity import Figures, VideoActivity, figures
from slowfast.event_driven.engine import EventDrivenInference
from slowfast.event_driven.frame_resize import FrameToSquare, read_squares
from slowfast.event_driven.sources import Sources
from slowfast.models.linear import pack_linears

# 0, then 12 values a decade, in units of the normalized frame; a change from black to white is some 4.
GRID = (0.0, *(float(f"{10 ** (n / 12):.2g}") for n in range(-36, 9)))


@dataclass(frozen=True)
class Goal:
    """How well the answers have to agree; one of the two is given.

    top1: share of the frames whose best class is the whole network's, at least; logit_error: |difference of logits| /
    the whole network's largest |logit|, mean over classes and frames, at most.
    """

    top1: float | None = None
    logit_error: float | None = None

    def is_met(self, by: Figures) -> bool:
        """Whether figures with a comparison are good enough."""
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
    """A threshold that was tried."""

    threshold: float
    figures: Figures


class Calibration:
    """Tries thresholds on the same decoded frames of some videos; all else is as EVENT says."""

    def __init__(self, cfg: ConfigNode, device: torch.device, sources: Sources) -> None:
        """Decodes, and runs the whole network. Raises UserError, DataError where nothing can be read."""
        self.cfg, self.device = cfg, device
        self.model = network_to_test(cfg, device)
        pack_linears(self.model)
        self.forward = ClipForward.from_config(cfg, device, TEST)
        self.ledger = FailureLedger(sources.count)
        self.videos = self._read(sources)
        self.whole = [torch.cat([self._whole(chunk) for chunk in self._chunks(video)]) for video in self.videos]

    def _read(self, sources: Sources) -> list[np.ndarray]:
        """Return the frames uint8 (K, P, P, 3) of each video as the network sees them."""
        transform, videos = FrameToSquare.from_config(self.cfg), []
        self.ledger.add(sources.refused)
        for source in sources.videos:
            record = source.record
            try:
                frames, missing = read_squares(source, transform, self.cfg.EVENT.MAX_FRAMES)
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
        """uint8 (K, P, P, 3) of EVENT.CHUNK frames each."""
        return list(torch.from_numpy(video).split(self.cfg.EVENT.CHUNK))

    def _frames(self, chunk: torch.Tensor) -> torch.Tensor:
        """float (K, 3, P, P)."""
        frames: torch.Tensor = self.forward.prepare(chunk[:, None])
        return frames

    @torch.inference_mode()
    def _whole(self, chunk: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(self._frames(chunk))
        return logits.float()

    def measure(self, threshold: float) -> Candidate:
        """The figures of a threshold."""
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.merge_from_list(["EVENT.THRESHOLD", threshold])
        engine = EventDrivenInference.from_config(cfg, self.model)
        activities = []
        for number, (video, whole) in enumerate(zip(self.videos, self.whole, strict=True)):
            engine.reset()
            activities.append(activity := VideoActivity(str(number)))
            for chunk, logits in zip(self._chunks(video), whole.split(self.cfg.EVENT.CHUNK), strict=True):
                changes = engine.detect(self._frames(chunk)[:, None], [0])
                results = engine.compute(changes)
                activity.add(results.active[:, 0], results.macs[:, 0], changes.mask[:, 0], results.logits[:, 0], logits)
        return Candidate(threshold, figures(activities, engine.network))


def find_threshold(
    measure: Callable[[float], Candidate], goal: Goal, grid: Sequence[float] = GRID
) -> tuple[Candidate, list[Candidate]]:
    """The candidate with the largest threshold that meets the goal, and all that were measured, in rising order.

    By bisection: agreement is taken to fall with a rising threshold; what is returned was measured, and meets the goal.
    Raises UserError where not even the smallest does.
    """
    tried: dict[int, Candidate] = {}
    met, missed = -1, len(grid)
    while missed - met > 1:
        middle = (met + missed) // 2
        tried[middle] = measure(grid[middle])
        if goal.is_met(tried[middle].figures):
            met = middle
        else:
            missed = middle
    if met < 0:
        least = tried[0].figures
        raise UserError(
            f"no threshold gives {goal}: with {grid[0]:g} top-1 agreement is {least.top1_agreement:.2f} %, the logit "
            f"error {least.logit_error_mean:.2g}; ask for less, or set EVENT.PRECISION float32"
        )
    return tried[met], [tried[place] for place in sorted(tried)]
