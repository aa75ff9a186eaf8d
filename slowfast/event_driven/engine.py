"""Event-driven inference with evMLP (arXiv 2507.01927): only patches that changed since their reference are computed.

The published rule is reference "previous" with gate "any". It drifts: a change that stays below the threshold from
frame to frame is never seen. With reference "hold" a patch is compared with the frame at which it was last computed,
which bounds the error; gate "mean" is not set off by single noisy pixels; key frames compute everything.

One frame at a time, a chunk of frames, and several streams at once give the same logits, to rounding.
Shapes: K frames of each of S streams, n x n patches of a stage.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from slowfast.config.defaults import check_value
from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError
from slowfast.event_driven.cpu import CompiledDetector, CompiledFeatures
from slowfast.event_driven.cuda_graphs import CudaGraphs
from slowfast.event_driven.detector import ChangeDetector, Changes, GateSettings, Slots
from slowfast.event_driven.features import PatchFeatures, Renewed
from slowfast.event_driven.kernels import Kernels, load_kernels
from slowfast.event_driven.linear_kernels import FLOAT32
from slowfast.event_driven.network import PatchNetwork
from slowfast.event_driven.static_shapes import StaticChangeDetector, StaticPatchFeatures
from slowfast.models.evmlp import EvMLP

_DEFAULT_STREAM = "default"
Halves = tuple[ChangeDetector, PatchFeatures]


@dataclass(frozen=True)
class FrameResult:
    """logits: float (1, classes); active_patches: computed in each stage; macs: multiply-adds that took."""

    logits: torch.Tensor
    active_patches: list[int]
    macs: int


@dataclass(frozen=True)
class Results:
    """Of K frames of each of S streams. logits: float (K, S, classes); active: int (K, S, stages); macs: (K, S).

    A GPU's logits stay there; active and macs are in the host's memory, where they have arrived.
    """

    logits: torch.Tensor
    active: torch.Tensor
    macs: torch.Tensor


@dataclass(frozen=True)
class StreamState:
    """All that is remembered of a stream: its reference frame, its number of frames, its tokens and logits."""

    frames: int
    reference: torch.Tensor
    rows: list[torch.Tensor]


class EventDrivenInference:
    """Runs an evMLP on streams of normalized frames (1, 3, side, side), recomputing what changed.

    threshold: in units of the normalized frame, at least 0; a patch is computed where its change is above it.
    reference: "previous" or "hold"; gate: "any" (a pixel's change) or "mean" (the patch's mean absolute change);
    keyframe_every: frames between two that are computed as a whole, 0 for none; precision: of the weights, float32,
    bfloat16 or int8; compiled: use kernels/ on CPUs that have a C++ compiler, else PyTorch alone.
    static: work in shapes that depend on how many patches changed (rounded up), not on which, and wait for the device
    in neither half of a step, so that steps can be captured; None: on GPUs. Only between the halves the host waits,
    for those counts; with `wait` False nowhere, but every patch is computed, and active and macs stay on the device.
    Weights are taken when it is made. Raises ConfigError.
    """

    def __init__(
        self,
        model: nn.Module,
        threshold: float = 0.05,
        reference: str = "hold",
        gate: str = "mean",
        keyframe_every: int = 0,
        precision: str = FLOAT32,
        compiled: bool = True,
        static: bool | None = None,
        wait: bool = True,
    ) -> None:
        if not isinstance(model, EvMLP):
            raise ConfigError(f"event-driven inference is for evMLP, not {type(model).__name__}: set MODEL.MODEL_NAME")
        check_value("EVENT.REFERENCE", reference)
        check_value("EVENT.GATE", gate)
        check_value("EVENT.PRECISION", precision)
        if not threshold >= 0:
            raise ConfigError(f"EVENT.THRESHOLD {threshold}: must be at least 0")
        if keyframe_every < 0:
            raise ConfigError(f"EVENT.KEYFRAME_EVERY {keyframe_every}: must be at least 0; 0 is never")
        with torch.inference_mode():
            on_cpu = model.linear.weight.device.type == "cpu"
            kernels = load_kernels() if compiled and on_cpu else None
            self.network = PatchNetwork(model, precision, kernels)
            settings = GateSettings(threshold, reference, gate, keyframe_every)
            static = self._on_gpu if static is None else static
            if static:
                self.detector, self.features = _static_halves(self.network, settings, wait)
            else:
                self.detector, self.features = _halves(self.network, settings, kernels)
            macs = [stage.macs for stage in self.network.stages]
            self._macs_of_patch = {d: torch.tensor(macs, device=d) for d in (torch.device("cpu"), self.network.device)}
        self._slots = Slots()

    @classmethod
    def from_config(cls, cfg: ConfigNode, model: nn.Module) -> EventDrivenInference:
        """As EVENT says."""
        event = cfg.EVENT
        settings = (event.THRESHOLD, event.REFERENCE, event.GATE, event.KEYFRAME_EVERY)
        return cls(model, *settings, precision=event.PRECISION, compiled=event.COMPILED)

    @torch.inference_mode()
    def __call__(self, frame: torch.Tensor, stream: Hashable = _DEFAULT_STREAM) -> FrameResult:
        """The next frame (1, 3, side, side) of a stream, which starts with its first frame.

        Raises ConfigError for a frame of another size or kind, which then changes nothing.
        """
        self._check_frame(frame)
        results = self._advance(frame[None], [stream])
        return FrameResult(results.logits[0], results.active[0, 0].tolist(), int(results.macs[0, 0]))

    @torch.inference_mode()
    def run(self, frames: torch.Tensor, streams: Sequence[Hashable] = (_DEFAULT_STREAM,)) -> Results:
        """The next K frames of each of S streams at once: (K, S, 3, side, side). Raises as `detect`."""
        return self._advance(frames, list(streams))

    def step(self, frames: Mapping[Hashable, torch.Tensor]) -> tuple[dict[Hashable, FrameResult], dict[Hashable, str]]:
        """The next frame (1, 3, side, side) of any streams, all in one pass; and what is wrong with the others.

        A stream whose frame cannot be taken keeps its state; the other streams go on.
        """
        wrong: dict[Hashable, str] = {}
        for stream, frame in frames.items():
            try:
                self._check_frame(frame)
            except ConfigError as error:
                wrong[stream] = str(error)
        streams = [stream for stream in frames if stream not in wrong]
        if not streams:
            return {}, wrong
        results = self.run(torch.cat([frames[stream] for stream in streams])[None], streams)
        active, macs = results.active[0].tolist(), results.macs[0].tolist()
        rows = zip(streams, results.logits[0].split(1), active, macs, strict=True)
        return {stream: FrameResult(*figures) for stream, *figures in rows}, wrong

    def detect(self, frames: torch.Tensor, streams: Sequence[Hashable]) -> Changes:
        """The first half of `run`, which may be called ahead of the second in another thread, in the same order.

        On a GPU both halves belong on the same CUDA stream, as they are unless told otherwise. Raises ConfigError for
        frames of another size or kind and ValueError where they do not suit the streams; nothing has changed then.
        """
        self.network.check(frames)
        if frames.ndim != 5 or not len(frames) or not len(streams) == len(set(streams)) == frames.shape[1] > 0:
            raise ValueError(f"frames {tuple(frames.shape)} of {len(streams)} streams: want (K, S, 3, H, W), each once")
        with torch.inference_mode():
            frames = frames.to(self.network.device, torch.float32)
            return self.detector(frames, [self._slot(stream) for stream in streams])

    def compute(self, changes: Changes) -> Results:
        """The second half of `run`."""
        with torch.inference_mode():
            renewed = self.features.renew(changes)
            return Results(renewed.logits, renewed.active, self._macs(renewed))

    @torch.inference_mode()
    def capture(self, frames: int = 1, streams: int = 1) -> None:
        """On a GPU, capture steps of so many frames of so many streams as CUDA graphs, which such steps then replay.

        To be called first: nothing else may use the GPU meanwhile, and it takes seconds. Steps of other shapes, and
        all once there are more streams than room was made for, do the same uncaptured. On CPUs this does nothing.
        """
        if not self._on_gpu:
            return
        for half in (self.detector, self.features):
            if isinstance(half, StaticChangeDetector | StaticPatchFeatures):
                half.capture(frames, streams, CudaGraphs(self.network.device))

    def dense(self, stage: int, stream: Hashable = _DEFAULT_STREAM) -> torch.Tensor:
        """A stage's tokens of a stream's last frame as a map: (n, n, C)."""
        return self.network.as_map(self.features.rows(self._known(stream))[stage], stage)

    def save(self, stream: Hashable = _DEFAULT_STREAM) -> StreamState:
        """A copy of all that is remembered of a stream."""
        slot = self._known(stream)
        rows = [row.clone() for row in self.features.rows(slot)]
        return StreamState(self.detector.seen[slot], self.detector.references[slot].clone(), rows)

    @torch.inference_mode()
    def restore(self, state: StreamState, stream: Hashable = _DEFAULT_STREAM) -> None:
        """Let a stream, new or not, go on from what `save` gave. Raises ValueError for the state of another network."""
        wanted = [self.detector.references.shape[1:], *(rows.shape for rows in self.features.start)]
        if wanted != [tensor.shape for tensor in (state.reference, *state.rows)]:
            raise ValueError("the state is that of another network: its patches, widths or classes differ")
        slot = self._slot(stream)
        self.detector.seen[slot] = state.frames
        self.detector.references[slot] = state.reference
        self.features.restore(slot, state.rows)

    def reset(self, stream: Hashable | None = None) -> None:
        """Forget a stream, or all: its next frame is its first."""
        for name in [stream] if stream is not None else list(self._slots.of):
            if name in self._slots.of:
                self._slots.close(name)

    @property
    def _on_gpu(self) -> bool:
        return self.network.device.type == "cuda"

    @property
    def streams(self) -> list[Hashable]:
        """The open streams."""
        return list(self._slots.of)

    def _check_frame(self, frame: torch.Tensor) -> None:
        self.network.check(frame)
        if frame.ndim != 4 or len(frame) != 1:
            raise ConfigError(f"a frame is (1, 3, {self.network.side}, {self.network.side}), not {tuple(frame.shape)}")

    def _advance(self, frames: torch.Tensor, streams: list[Hashable]) -> Results:
        return self.compute(self.detect(frames, streams))

    def _known(self, stream: Hashable) -> int:
        if stream not in self._slots.of:
            raise KeyError(f"no stream {stream!r} is open")
        return self._slots.of[stream]

    def _slot(self, stream: Hashable) -> int:
        """A stream's slot; a new one at its start for a stream not seen before."""
        if stream in self._slots.of:
            return self._slots.of[stream]
        slot = self._slots.open(stream)
        self.detector.reset(slot)
        return slot

    def _macs(self, renewed: Renewed) -> torch.Tensor:
        """Multiply-adds of each frame: (K, S)."""
        head = (renewed.active[..., -1] > 0) * self.network.head_macs
        return (renewed.active * self._macs_of_patch[renewed.active.device]).sum(-1) + head


def _halves(network: PatchNetwork, settings: GateSettings, kernels: Kernels | None) -> Halves:
    if kernels is None:
        return ChangeDetector(network, settings), PatchFeatures(network)
    return CompiledDetector(network, settings, kernels), CompiledFeatures(network, kernels)


def _static_halves(network: PatchNetwork, settings: GateSettings, wait: bool) -> Halves:
    return StaticChangeDetector(network, settings, wait), StaticPatchFeatures(network, wait)
