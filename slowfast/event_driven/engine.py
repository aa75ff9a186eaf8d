"""Event-driven inference with evMLP (arXiv 2507.01927): compute only the patches that changed.

The published rule is reference "previous" with gate "any". It drifts: a change that stays below the threshold from
frame to frame is never detected. Reference "hold" compares a patch with the frame at which it was last computed, which
bounds the error. Gate "mean" is robust to single noisy pixels. Keyframes are computed in full.

Single frames, chunks of frames and batches of streams give equal logits, up to rounding.

Notation: K frames per stream, S streams, n x n patches per stage.
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
from slowfast.event_driven.features import Outputs, PatchFeatures
from slowfast.event_driven.kernels import Kernels, load_kernels
from slowfast.event_driven.linear_kernels import FLOAT32
from slowfast.event_driven.network import PatchNetwork
from slowfast.event_driven.static_shapes import StaticChangeDetector, StaticPatchFeatures
from slowfast.models.evmlp import EvMLP

_DEFAULT_STREAM = "default"


@dataclass(frozen=True)
class FrameResult:
    """Result of one frame of one stream."""

    logits: torch.Tensor  # float (1, classes)
    active_patches: list[int]  # number of patches computed per stage
    macs: int  # multiply-adds


@dataclass(frozen=True)
class Results:
    """Results of K frames of S streams: logits on the device, the others on the host."""

    logits: torch.Tensor  # float (K, S, classes)
    active: torch.Tensor  # int (K, S, stages): patches computed
    macs: torch.Tensor  # int (K, S): multiply-adds


@dataclass(frozen=True)
class StreamState:
    """State of a stream."""

    frames: int  # number of frames so far
    reference: torch.Tensor  # reference frame (3, side, side)
    rows: list[torch.Tensor]  # tokens (N, C) of each stage, and logits (1, classes)


class EventDrivenInference:
    """Event-driven inference on streams of normalized frames (1, 3, side, side): only changed patches are recomputed.

    The weights are copied on construction.

    Args:
        model: Trained evMLP.
        threshold: Change above which a patch is computed, in units of the normalized frame; at least 0.
        reference: Reference of a patch: "previous" frame, or "hold", the frame at which it was last computed.
        gate: Measure of the change: "any", the largest of a pixel, or "mean", the mean absolute change of the patch.
        keyframe_every: Interval between frames computed in full; 0 for never.
        precision: Precision of the weights: float32, bfloat16 or int8.
        compiled: Use the compiled kernels on CPUs with a C++ compiler.
        static: Use shapes that only depend on the (rounded up) number of changed patches and never wait for the device
            within :meth:`detect` or :meth:`compute`, so that both can be captured (default: on GPUs). The host waits
            for the number of changed patches between the two.
        wait: Set to False to never wait for the device: every patch is computed, and the counts stay on the device.

    Raises:
        ConfigError: If the model or a setting is unsuitable.
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
            raise ConfigError(
                f"event-driven inference requires evMLP, not {type(model).__name__}. Set MODEL.MODEL_NAME"
            )
        check_value("EVENT.REFERENCE", reference)
        check_value("EVENT.GATE", gate)
        check_value("EVENT.PRECISION", precision)
        if not threshold >= 0:
            raise ConfigError(f"EVENT.THRESHOLD ({threshold}) must be at least 0")
        if keyframe_every < 0:
            raise ConfigError(f"EVENT.KEYFRAME_EVERY ({keyframe_every}) must be at least 0 (0: never)")
        with torch.inference_mode():
            on_cpu = model.linear.weight.device.type == "cpu"
            kernels = load_kernels() if compiled and on_cpu else None
            self.network = PatchNetwork(model, precision, kernels)
            settings = GateSettings(threshold, reference, gate, keyframe_every)
            static = self._on_gpu if static is None else static
            self.detector, self.features = _build(self.network, settings, kernels, static, wait)
            macs = [stage.macs for stage in self.network.stages]
            self._macs_per_patch = {d: torch.tensor(macs, device=d) for d in (torch.device("cpu"), self.network.device)}
        self._slots = Slots()

    @classmethod
    def from_config(cls, cfg: ConfigNode, model: nn.Module, precision: str | None = None) -> EventDrivenInference:
        """Build from the EVENT settings, with EVENT.PRECISION unless another precision is given."""
        event = cfg.EVENT
        settings = (event.THRESHOLD, event.REFERENCE, event.GATE, event.KEYFRAME_EVERY)
        return cls(model, *settings, precision=precision or event.PRECISION, compiled=event.COMPILED)

    @torch.inference_mode()
    def __call__(self, frame: torch.Tensor, stream: Hashable = _DEFAULT_STREAM) -> FrameResult:
        """Process the next frame of a stream.

        Args:
            frame: Normalized frame (1, 3, side, side).
            stream: Name of the stream; it starts with its first frame.

        Raises:
            ConfigError: If the frame has another size or dtype; the stream is unchanged.
        """
        self._check_frame(frame)
        results = self._advance(frame[None], [stream])
        return FrameResult(results.logits[0], results.active[0, 0].tolist(), int(results.macs[0, 0]))

    @torch.inference_mode()
    def run(self, frames: torch.Tensor, streams: Sequence[Hashable] = (_DEFAULT_STREAM,)) -> Results:
        """Process the next K frames of S streams at once: frames (K, S, 3, side, side).

        Raises:
            ConfigError: See :meth:`detect`.
            ValueError: See :meth:`detect`.
        """
        return self._advance(frames, list(streams))

    def run_dense(self, frames: torch.Tensor) -> torch.Tensor:
        """Run dense inference in the precision of the engine; streams are neither used nor changed.

        It equals the model, up to the rounding of the weights, and is at least as fast on CPUs: it uses the faster of
        the compiled kernels and PyTorch.

        Args:
            frames: Normalized frames (B, 3, side, side).

        Returns:
            Logits, float (B, classes).

        Raises:
            ConfigError: If the frames have another size or dtype.
        """
        return self.network.dense(frames)

    def step(self, frames: Mapping[Hashable, torch.Tensor]) -> tuple[dict[Hashable, FrameResult], dict[Hashable, str]]:
        """Process the next frame (1, 3, side, side) of several streams in one batch.

        A stream whose frame is unsuitable keeps its state; the others are processed.

        Returns:
            The results of the streams, and an error message for each unsuitable frame.
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
        return {stream: FrameResult(*values) for stream, *values in rows}, wrong

    def detect(self, frames: torch.Tensor, streams: Sequence[Hashable]) -> Changes:
        """Detect the changed patches, the first half of :meth:`run`.

        It may run ahead of :meth:`compute` in another thread, in the same order. On a GPU both must use the same CUDA
        stream, which is the default.

        Args:
            frames: Normalized frames (K, S, 3, side, side).
            streams: Names of the S streams.

        Raises:
            ConfigError: If the frames have another size or dtype; nothing is changed.
            ValueError: If the number of streams does not match or a stream is named twice; nothing is changed.
        """
        self.network.check(frames)
        if frames.ndim != 5 or not len(frames) or not len(streams) == len(set(streams)) == frames.shape[1] > 0:
            raise ValueError(
                f"got frames {tuple(frames.shape)} for {len(streams)} streams, expected (K, S, 3, H, W) and S distinct "
                "streams"
            )
        with torch.inference_mode():
            frames = frames.to(self.network.device, torch.float32)
            return self.detector(frames, [self._slot(stream) for stream in streams])

    def compute(self, changes: Changes) -> Results:
        """Compute the changed patches and the logits, the second half of :meth:`run`."""
        with torch.inference_mode():
            outputs = self.features.update(changes)
            return Results(outputs.logits, outputs.active, self._macs(outputs))

    @torch.inference_mode()
    def capture(self, frames: int = 1, streams: int = 1) -> None:
        """Capture CUDA graphs for steps of a given shape. No effect on CPUs.

        Call it first: it takes seconds, and nothing else may use the GPU meanwhile. Steps of other shapes run without
        graphs, as do all steps once there are more streams than were captured.

        Args:
            frames: Number of frames per stream and step.
            streams: Number of streams.
        """
        if not self._on_gpu:
            return
        for part in (self.detector, self.features):
            if isinstance(part, StaticChangeDetector | StaticPatchFeatures):
                part.capture(frames, streams, CudaGraphs(self.network.device))

    def dense(self, stage: int, stream: Hashable = _DEFAULT_STREAM) -> torch.Tensor:
        """Return a stage's tokens for the last frame of a stream as a map: (n, n, C)."""
        return self.network.as_map(self.features.rows(self._known(stream))[stage], stage)

    def save(self, stream: Hashable = _DEFAULT_STREAM) -> StreamState:
        """Return a copy of the state of a stream."""
        slot = self._known(stream)
        rows = [row.clone() for row in self.features.rows(slot)]
        return StreamState(self.detector.seen[slot], self.detector.references[slot].clone(), rows)

    @torch.inference_mode()
    def restore(self, state: StreamState, stream: Hashable = _DEFAULT_STREAM) -> None:
        """Resume a stream, new or existing, from a saved state.

        Raises:
            ValueError: If the state belongs to another network.
        """
        expected = [self.detector.references.shape[1:], *(rows.shape for rows in self.features.initial)]
        if expected != [tensor.shape for tensor in (state.reference, *state.rows)]:
            raise ValueError("the state belongs to another network: its patch sizes, dimensions or classes differ")
        slot = self._slot(stream)
        self.detector.seen[slot] = state.frames
        self.detector.references[slot] = state.reference
        self.features.restore(slot, state.rows)

    def reset(self, stream: Hashable | None = None) -> None:
        """Close a stream, or all of them: its next frame starts a new one."""
        for name in [stream] if stream is not None else list(self._slots.of):
            if name in self._slots.of:
                self._slots.close(name)

    @property
    def _on_gpu(self) -> bool:
        return self.network.device.type == "cuda"

    @property
    def streams(self) -> list[Hashable]:
        """Names of the open streams."""
        return list(self._slots.of)

    def _check_frame(self, frame: torch.Tensor) -> None:
        self.network.check(frame)
        if frame.ndim != 4 or len(frame) != 1:
            raise ConfigError(
                f"expected a frame (1, 3, {self.network.side}, {self.network.side}), got {tuple(frame.shape)}"
            )

    def _advance(self, frames: torch.Tensor, streams: list[Hashable]) -> Results:
        return self.compute(self.detect(frames, streams))

    def _known(self, stream: Hashable) -> int:
        if stream not in self._slots.of:
            raise KeyError(f"no stream {stream!r} is open")
        return self._slots.of[stream]

    def _slot(self, stream: Hashable) -> int:
        """Return the slot of a stream; open an unknown stream."""
        if stream in self._slots.of:
            return self._slots.of[stream]
        slot = self._slots.open(stream)
        self.detector.reset(slot)
        return slot

    def _macs(self, outputs: Outputs) -> torch.Tensor:
        """Return the multiply-adds of each frame: (K, S)."""
        head = (outputs.active[..., -1] > 0) * self.network.head_macs
        return (outputs.active * self._macs_per_patch[outputs.active.device]).sum(-1) + head


def _build(
    network: PatchNetwork, settings: GateSettings, kernels: Kernels | None, static: bool, wait: bool
) -> tuple[ChangeDetector, PatchFeatures]:
    if static:
        return StaticChangeDetector(network, settings, wait), StaticPatchFeatures(network, wait)
    if kernels is None:
        return ChangeDetector(network, settings), PatchFeatures(network)
    return CompiledDetector(network, settings, kernels), CompiledFeatures(network, kernels)
