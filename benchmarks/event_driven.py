"""Event-driven inference against the whole network on the same frames: synthetic changes, and videos.

K frames of each of S streams. Frames are decoded and normalized before the clock starts; finding the changed patches
is part of what is timed. The whole network and one engine take turns of several calls in a row, as a stream makes them:
after a single call each would find the other's weights in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.measure import OVER_WHOLE, SHARE_OF_WHOLE, Figure, time_interleaved
from benchmarks.videos import changed
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST
from slowfast.engine.forward import ClipForward
from slowfast.errors import ConfigError
from slowfast.event_driven import EventDrivenInference
from slowfast.event_driven.checks import check_network
from slowfast.event_driven.engine import PRECISIONS
from slowfast.event_driven.frame_resize import FrameToSquare, read_squares
from slowfast.event_driven.linear_kernels import FLOAT32
from slowfast.event_driven.sources import find_files
from slowfast.models import build_model
from slowfast.models.evmlp import EvMLP
from slowfast.models.linear import pack_linears

GROUP, WHOLE = "event-driven", "whole network, float32"
STREAMS = 16
_BLOCKS = {"1 %": (2, 5), "5 %": (7, 7)}  # patches of the first stage, rows x columns: 10 and 49 of 1024
_TURN = 8  # calls in a row
_MOST_FRAMES = 1200  # of a video, for the memory they take
Turn = list[torch.Tensor]  # calls in a row


def measure_event_driven(cfg: ConfigNode, device: torch.device, runs: int, videos: Sequence[Path]) -> list[Figure]:
    """The figures of each kind of activity, with the network and the gate that the config says."""
    check_network(cfg)
    torch.manual_seed(cfg.RNG_SEED)
    model = build_model(cfg).to(device).eval()
    assert isinstance(model, EvMLP)
    pack_linears(model)
    bench = _Bench(cfg, model, device, runs)
    one, five = _BLOCKS["1 %"], _BLOCKS["5 %"]
    figures = bench.figures("every patch changes", bench.frames(1, 1, (bench.grid, bench.grid)), share=True)
    figures += bench.figures("nothing changes", bench.frames(1, 1, (0, 0)), share=True)
    figures += bench.figures("1 % in one region, frame by frame", bench.frames(1, 1, one))
    figures += bench.figures("1 % scattered, frame by frame", bench.scattered(one[0] * one[1]))
    figures += bench.figures(f"5 % in one region, {STREAMS} streams", bench.frames(1, STREAMS, five))
    figures += bench.figures(f"5 % in one region, chunks of {STREAMS} frames", bench.frames(STREAMS, 1, five))
    for video in videos:
        figures += bench.figures_of_video(video)
    return figures


class _Bench:
    """What all measurements share."""

    def __init__(self, cfg: ConfigNode, model: EvMLP, device: torch.device, runs: int) -> None:
        self.cfg, self.model, self.device = cfg, model, device
        self.runs, self.calls = runs, (1 + runs) * _TURN
        self.grid, self.patch = model.side // model.patch_sizes[0], model.patch_sizes[0]
        self.random = torch.Generator().manual_seed(cfg.RNG_SEED)

    def frames(self, k: int, s: int, block: tuple[int, int]) -> list[torch.Tensor]:
        """Calls of (K, S, 3, side, side): in each frame a block of patches, rows x columns, differs from the last."""
        current = torch.rand(s, 3, self.model.side, self.model.side, generator=self.random)
        calls = []
        for _ in range(self.calls):
            chunk = []
            for _ in range(k):
                current = current.clone()
                for frame in current:
                    self._change(frame, block)
                chunk.append(current)
            calls.append(torch.stack(chunk).to(self.device))
        return calls

    def _change(self, frame: torch.Tensor, block: tuple[int, int]) -> None:
        """Change every patch of a block of a frame (3, side, side) by far more than any threshold."""
        if not all(block):
            return
        top, left = (int(torch.randint(self.grid - n + 1, (), generator=self.random)) * self.patch for n in block)
        part = frame[:, top : top + block[0] * self.patch, left : left + block[1] * self.patch]
        part.copy_(torch.rand(part.shape, generator=self.random) - 10 * part.mean().sign())

    def scattered(self, patches: int) -> list[torch.Tensor]:
        """Calls of one frame, in which so many single patches differ from the frame before."""
        current = torch.rand(3, self.model.side, self.model.side, generator=self.random)
        calls = []
        for _ in range(self.calls):
            current = current.clone()
            for _ in range(patches):
                self._change(current, (1, 1))
            calls.append(current[None, None].to(self.device))
        return calls

    def video(self, path: Path) -> list[torch.Tensor]:
        """Calls of (K, 1, 3, side, side): the video's first frames, cut into chunks."""
        found = find_files([path], self.cfg.DATA.DECODING_THREADS)
        if not found.videos:
            raise ConfigError(f"{path}: {found.refused[0].reason if found.refused else 'no video'}")
        pixels, _ = read_squares(found.videos[0], FrameToSquare.from_config(self.cfg), _MOST_FRAMES)
        if len(pixels) < 2 * STREAMS:
            raise ConfigError(f"{path}: {len(pixels)} frames are too few; it takes {2 * STREAMS}")
        forward = ClipForward.from_config(self.cfg, self.device, TEST)
        return list(forward.prepare(torch.from_numpy(pixels)[:, None])[:, None].split(STREAMS))

    def figures(self, name: str, calls: list[torch.Tensor], share: bool = False) -> list[Figure]:
        """The whole network's time a frame and each precision's ratio: of times (`share`), or speed-ups.

        A turn of calls is a run; the first is not timed.
        """
        return self._figures(name, _turns(calls), share)

    def figures_of_video(self, path: Path) -> list[Figure]:
        """The same of a video from its start to its end, which is a run."""
        turns = _turns(self.video(path))
        return self._figures(f"{path.name}, chunks of {STREAMS} frames", turns * (1 + self.runs), False, len(turns))

    def _figures(self, name: str, turns: list[Turn], share: bool, restart: int = 0) -> list[Figure]:
        """restart: turns after which a video begins again, which are a run; 0: never, and each turn is a run."""
        group, figures, turns_a_run = f"{GROUP}, {name}", [], restart or 1
        frames = sum(call.shape[0] * call.shape[1] for turn in turns[:turns_a_run] for call in turn)
        for precision in PRECISIONS:
            cases = {WHOLE: self._whole(turns), precision: self._event(turns, precision, restart)}
            timed = time_interleaved(cases, len(turns) - turns_a_run, self.device, warm_up=turns_a_run)
            timings = timed.summed(turns_a_run)
            for case in cases if precision == FLOAT32 else (precision,):
                figures.append(Figure(group, case, 1e3 * timings.median(case) / frames, "ms a frame", self.runs))
            ratio = timings.ratio(precision, WHOLE) if share else timings.ratio(WHOLE, precision)
            what = SHARE_OF_WHOLE if share else OVER_WHOLE
            value, unit = (100 * ratio, "%") if share else (ratio, "x")
            figures.append(Figure(group, f"{precision}, {what}", value, unit, self.runs))
        return figures

    def _whole(self, turns: list[Turn]) -> Callable[[], object]:
        waiting = iter(turns)

        @torch.inference_mode()
        def run() -> object:
            return [self.model(frames.flatten(0, 1)) for frames in next(waiting)]

        return run

    def _event(self, turns: list[Turn], precision: str, restart: int) -> Callable[[], object]:
        engine = EventDrivenInference.from_config(changed(self.cfg, "EVENT.PRECISION", precision), self.model)
        frames, streams = turns[0][0], range(turns[0][0].shape[1])
        if self.cfg.EVENT.COMPILED:
            engine.capture(frames.shape[0], frames.shape[1])
        waiting = iter(enumerate(turns))

        def run() -> object:
            number, turn = next(waiting)
            if restart and number % restart == 0:
                engine.reset()
            return [engine.run(frames, streams) for frames in turn]

        return run


def _turns(calls: list[torch.Tensor]) -> list[Turn]:
    return [calls[start : start + _TURN] for start in range(0, len(calls), _TURN)]
