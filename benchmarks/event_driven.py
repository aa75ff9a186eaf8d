"""Benchmark of event-driven against dense inference on the same frames: synthetic changes, and videos.

Frames are decoded and normalized before timing; detecting the changed patches is timed. Dense inference in float32 is
that of the engine or of the network itself, whichever is faster for the number of frames. It takes turns of several
calls with the engine, as a stream makes them: after single calls, each would find the weights of the other in the
cache.

Notation: K frames of each of S streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import OVER_DENSE, SHARE_OF_DENSE, Measurement, time_interleaved
from slowfast.config.defaults import choices
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST
from slowfast.engine.forward import ClipForward
from slowfast.errors import ConfigError
from slowfast.event_driven import EventDrivenInference
from slowfast.event_driven.linear_kernels import FLOAT32
from slowfast.event_driven.network import check_network
from slowfast.event_driven.readers import read_frames
from slowfast.event_driven.sources import find_files
from slowfast.event_driven.video_frames import FrameResize
from slowfast.models import build_model
from slowfast.models.evmlp import EvMLP
from slowfast.models.linear import pack_linears

GROUP, DENSE = "event-driven", "dense inference, float32"
STREAMS = 16
_BLOCKS = {"1 %": (2, 5), "5 %": (7, 7)}  # rows x columns of patches of the first stage: 10 and 49 of 1024
_CALLS, _BATCHED_CALLS = 8, 2  # consecutive calls of a turn, with one frame and with many
_MAX_FRAMES = 1200  # frames per video, to limit memory
Turn = list[torch.Tensor]  # inputs of consecutive calls
Dense = Callable[[torch.Tensor], torch.Tensor]  # dense inference on frames (B, 3, side, side)


def measure_event_driven(
    cfg: ConfigNode, device: torch.device, runs: int, videos: Sequence[Path]
) -> Iterator[list[Measurement]]:
    """Yield the measurements of each kind of activity, with the model and the gate of the config."""
    check_network(cfg)
    torch.manual_seed(cfg.RNG_SEED)
    model = build_model(cfg).to(device).eval()
    assert isinstance(model, EvMLP)
    pack_linears(model)
    bench = _Bench(cfg, model, device, runs)
    pixels = {path: bench.read(path) for path in videos}
    one, five = _BLOCKS["1 %"], _BLOCKS["5 %"]
    everything, nothing = (bench.grid, bench.grid), (0, 0)
    yield bench.compare_dense(1)
    yield bench.compare_dense(STREAMS)
    for batch, k, s in (
        ("", 1, 1),
        (f", {STREAMS} streams", 1, STREAMS),
        (f", chunks of {STREAMS} frames", STREAMS, 1),
    ):
        yield bench.measure(f"every patch changes{batch}", bench.frames(k, s, everything), share=True)
    yield bench.measure("nothing changes", bench.frames(1, 1, nothing), share=True)
    yield bench.measure("1 % in one region, frame by frame", bench.frames(1, 1, one))
    yield bench.measure("1 % scattered, frame by frame", bench.scattered(one[0] * one[1]))
    yield bench.measure(f"5 % in one region, {STREAMS} streams", bench.frames(1, STREAMS, five))
    yield bench.measure(f"5 % in one region, chunks of {STREAMS} frames", bench.frames(STREAMS, 1, five))
    for path in videos:
        yield bench.measure_video(path.name, pixels.pop(path))


class _Bench:
    """Model and random generator of the measurements."""

    def __init__(self, cfg: ConfigNode, model: EvMLP, device: torch.device, runs: int) -> None:
        self.cfg, self.model, self.device, self.runs = cfg, model, device, runs
        self.full = EventDrivenInference.from_config(cfg, model, FLOAT32)
        self.faster: dict[int, Dense] = {}  # dense inference by number of frames
        self.grid, self.patch = model.side // model.patch_sizes[0], model.patch_sizes[0]
        self.random = torch.Generator().manual_seed(cfg.RNG_SEED)

    def frames(self, k: int, s: int, block: tuple[int, int]) -> list[torch.Tensor]:
        """Return inputs (K, S, 3, side, side) of all calls; in each frame a random block of patches changes."""
        current = torch.rand(s, 3, self.model.side, self.model.side, generator=self.random)
        calls = []
        for _ in range((1 + self.runs) * _calls(k * s)):
            chunk = []
            for _ in range(k):
                current = current.clone()
                for frame in current:
                    self._change(frame, block)
                chunk.append(current)
            calls.append(torch.stack(chunk).to(self.device))
        return calls

    def _change(self, frame: torch.Tensor, block: tuple[int, int]) -> None:
        """Change every patch of a random block of a frame (3, side, side) by far more than any threshold."""
        if not all(block):
            return
        top, left = (int(torch.randint(self.grid - n + 1, (), generator=self.random)) * self.patch for n in block)
        part = frame[:, top : top + block[0] * self.patch, left : left + block[1] * self.patch]
        part.copy_(torch.rand(part.shape, generator=self.random) - 10 * part.mean().sign())

    def scattered(self, patches: int) -> list[torch.Tensor]:
        """Return inputs of one frame per call, in which random single patches change."""
        current = torch.rand(3, self.model.side, self.model.side, generator=self.random)
        calls = []
        for _ in range((1 + self.runs) * _CALLS):
            current = current.clone()
            for _ in range(patches):
                self._change(current, (1, 1))
            calls.append(current[None, None].to(self.device))
        return calls

    def read(self, path: Path) -> np.ndarray:
        """Return the first frames of a video for the network, uint8 (frames, side, side, 3)."""
        found = find_files([path], self.cfg.DATA.DECODING_THREADS)
        if not found.videos:
            raise ConfigError(f"--videos {path}: {found.refused[0].reason if found.refused else 'not a video'}")
        pixels, _ = read_frames(found.videos[0], FrameResize.from_config(self.cfg), _MAX_FRAMES)
        if len(pixels) < 2 * STREAMS:
            raise ConfigError(f"--videos {path} has {len(pixels)} frames. At least {2 * STREAMS} are needed")
        return pixels

    def measure(self, name: str, calls: list[torch.Tensor], share: bool = False) -> list[Measurement]:
        """Measure dense inference per frame, and each precision relative to it; each turn is a run.

        Args:
            name: Name of the activity.
            calls: Inputs of all calls.
            share: Report the ratio of times instead of the speed-up.
        """
        return self._measure(name, _turns(calls), share)

    def measure_video(self, name: str, pixels: np.ndarray) -> list[Measurement]:
        """Measure the frames of a video (frames, side, side, 3), in chunks from first to last; each pass is a run."""
        forward = ClipForward.from_config(self.cfg, self.device, TEST)
        frames = forward.prepare(torch.from_numpy(pixels)[:, None])[:, None]
        turns = _turns(list(frames.split(STREAMS)))
        return self._measure(f"{name}, chunks of {STREAMS} frames", turns * (1 + self.runs), False, len(turns))

    def _measure(self, name: str, turns: list[Turn], share: bool, restart: int = 0) -> list[Measurement]:
        """Measure turns of calls; `restart` is the number of turns per pass of a video, 0 if each turn is a run."""
        group, measurements, turns_per_run = f"{GROUP}, {name}", [], restart or 1
        frames = sum(call.shape[0] * call.shape[1] for turn in turns[:turns_per_run] for call in turn)
        dense = self.faster[turns[0][0].shape[0] * turns[0][0].shape[1]]
        for precision in map(str, choices("EVENT.PRECISION")):
            cases = {DENSE: self._dense(turns, dense), precision: self._event(turns, precision, restart)}
            timed = time_interleaved(cases, len(turns) - turns_per_run, self.device, warm_up=turns_per_run)
            timings = timed.summed(turns_per_run)
            for case in cases if precision == FLOAT32 else (precision,):
                measurements.append(
                    Measurement(group, case, 1e3 * timings.median(case) / frames, "ms/frame", self.runs)
                )
            ratio = timings.ratio(precision, DENSE) if share else timings.ratio(DENSE, precision)
            what = SHARE_OF_DENSE if share else OVER_DENSE
            value, unit = (100 * ratio, "%") if share else (ratio, "x")
            measurements.append(Measurement(group, f"{precision}, {what}", value, unit, self.runs))
        return measurements

    def compare_dense(self, frames: int) -> list[Measurement]:
        """Measure dense inference by the network and by the engine, in float32 on this many frames."""
        turns = _turns(self.frames(1, frames, (self.grid, self.grid)))
        ways: dict[str, Dense] = {"network": self.model, "engine": self.full.run_dense}
        cases = {name: self._dense(turns, dense) for name, dense in ways.items()}
        timings = time_interleaved(cases, len(turns) - 1, self.device)
        self.faster[frames] = ways[min(ways, key=timings.median)]
        group, count = f"{GROUP}, dense inference in float32, {frames} at a time", frames * len(turns[0])
        measurements = [
            Measurement(group, name, 1e3 * timings.median(name) / count, "ms/frame", self.runs) for name in ways
        ]
        return [*measurements, Measurement(group, "speed-up", timings.ratio("network", "engine"), "x", self.runs)]

    def _dense(self, turns: list[Turn], dense: Dense) -> Callable[[], object]:
        waiting = iter(turns)

        @torch.inference_mode()
        def run() -> object:
            return [dense(frames.flatten(0, 1)) for frames in next(waiting)]

        return run

    def _event(self, turns: list[Turn], precision: str, restart: int) -> Callable[[], object]:
        engine = EventDrivenInference.from_config(self.cfg, self.model, precision)
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
    count = _calls(calls[0].shape[0] * calls[0].shape[1])
    return [calls[start : start + count] for start in range(0, len(calls), count)]


def _calls(frames: int) -> int:
    """Return the calls of a turn with this many frames each."""
    return _CALLS if frames == 1 else _BATCHED_CALLS
