"""Knowledge distillation: a teacher network contributes to the loss (DeiT, arXiv 2012.12877).

Shapes: N clips of this process, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.config.defaults import merge_config
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TRAIN, find_dataset
from slowfast.errors import CheckpointError, ConfigError, UserError
from slowfast.models.build import build_model
from slowfast.models.linear import pack_linears
from slowfast.models.protocol import CLIPS, EVENTS, Network
from slowfast.models.weights import load_weights, read_weights
from slowfast.utils.logging import get_logger
from slowfast.utils.paths import nearest_file, why_not_regular
from slowfast.utils.text import did_you_mean, plain, redact


def hard_loss(logits: torch.Tensor, teacher_logits: torch.Tensor, tau: float) -> torch.Tensor:
    """Return the mean cross-entropy with the teacher's predicted class (DeiT, equation 3); `tau` is not used."""
    return F.cross_entropy(logits.float(), teacher_logits.argmax(1))


def soft_loss(logits: torch.Tensor, teacher_logits: torch.Tensor, tau: float) -> torch.Tensor:
    """Return the mean of tau^2 KL(softmax(teacher / tau) || softmax(logits / tau)) (DeiT, equation 2)."""
    student, teacher = ((x.float() / tau).log_softmax(1) for x in (logits, teacher_logits))
    return tau**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


# DISTILL.TYPE -> loss of student logits (N, K), teacher logits (N, K) and temperature, in float32 under autocast.
LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {"hard": hard_loss, "soft": soft_loss}


class Renormalize:
    """Conversion of inputs (N, 3, ...) from the normalization of one network to that of another.

    Normalizations differ in DATA.MEAN, DATA.STD and DATA.REVERSE_INPUT_CHANNEL. The conversion is affine per channel,
    so it commutes with MixUp and CutMix.

    Args:
        given: DATA section of the config that normalized the inputs.
        wanted: DATA section of the network that receives them.
        device: Device of the inputs.
    """

    def __init__(self, given: ConfigNode, wanted: ConfigNode, device: torch.device) -> None:
        self.flip = given.REVERSE_INPUT_CHANNEL != wanted.REVERSE_INPUT_CHANNEL
        order = -1 if self.flip else 1
        channels = list(zip(given.MEAN[::order], given.STD[::order], wanted.MEAN, wanted.STD, strict=True))
        self.same = not self.flip and given.MEAN == wanted.MEAN and given.STD == wanted.STD
        self.scale = torch.tensor([std / new_std for _, std, _, new_std in channels], device=device)
        self.shift = torch.tensor([(mean - new) / new_std for mean, _, new, new_std in channels], device=device)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return converted inputs; `inputs` itself if the normalizations are the same."""
        if self.same:
            return inputs
        if self.flip:
            inputs = inputs.flip(1)
        shape = (-1, *[1] * (inputs.dim() - 2))
        return torch.addcmul(self.shift.view(shape), inputs, self.scale.view(shape))


class AllHeads(nn.Module):
    """Wrapper whose forward pass returns the logits of every head, so that it can be wrapped in DDP."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the logits (N, K) of the class head and, if there is one, of the distillation head."""
        return self.model.forward_heads(x) if isinstance(self.model, Network) else (self.model(x),)


class Distillation:
    """Distillation loss: (1 - alpha) base + alpha `LOSSES[kind]`.

    The teacher is frozen, in evaluation mode, and part of neither the checkpoint nor the optimizer.

    Args:
        teacher: Trained network.
        renormalize: Conversion of the student's inputs.
        kind: DISTILL.TYPE.
        alpha: Weight of the distillation loss.
        tau: Temperature.
    """

    def __init__(self, teacher: nn.Module, renormalize: Renormalize, kind: str, alpha: float, tau: float) -> None:
        self.teacher, self.renormalize = teacher.eval().requires_grad_(False), renormalize
        self.distance, self.alpha, self.tau = LOSSES[kind], alpha, tau

    @classmethod
    def from_config(cls, cfg: ConfigNode, device: torch.device) -> Distillation:
        """Build the teacher of DISTILL and load its weights.

        Raises:
            ConfigError: If the teacher does not exist or does not accept the student's inputs.
            CheckpointError: If its weights cannot be loaded.
        """
        check_teacher_weights(cfg)
        teacher_cfg, given = load_teacher_config(cfg), cfg.DISTILL.TEACHER_CHECKPOINT
        path = redact(given)
        teacher = build_model(teacher_cfg)
        try:
            kind = cfg.DISTILL.TEACHER_CHECKPOINT_TYPE
            load_weights(teacher, read_weights(given, kind, teacher, teacher_cfg.TEST.CHECKPOINT_WEIGHTS), path)
        except CheckpointError as error:
            raise CheckpointError(f"DISTILL.TEACHER_CHECKPOINT: {error}") from error
        teacher.to(device).eval()
        if not cfg.TRAIN.MIXED_PRECISION:
            pack_linears(teacher, measured=False)
        name = teacher_cfg.MODEL.MODEL_NAME
        get_logger().info(f"{cfg.DISTILL.TYPE.capitalize()} distillation from {name} with the weights in {path}")
        renormalize = Renormalize(cfg.DATA, teacher_cfg.DATA, device)
        return cls(teacher, renormalize, cfg.DISTILL.TYPE, cfg.DISTILL.ALPHA, cfg.DISTILL.TAU)

    @torch.no_grad()
    def teacher_logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the teacher's logits (N, K) for inputs normalized for the student."""
        logits: torch.Tensor = self.teacher(self.renormalize(inputs))
        return logits

    def combine(self, base: torch.Tensor, logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
        """Return the total loss, from the base loss, the logits of the distillation head and the teacher's logits."""
        return (1 - self.alpha) * base + self.alpha * self.distance(logits, teacher_logits, self.tau)


def load_teacher_config(cfg: ConfigNode) -> ConfigNode:
    """Return the teacher's config, merged for testing on the student's training data.

    Raises:
        ConfigError: If it cannot be merged, the number of classes differs or a file is missing.
    """
    if find_dataset(cfg, TRAIN).input_kind == EVENTS:
        raise ConfigError(
            f"DISTILL.ENABLE is for images and clips, but TRAIN.DATASET {cfg.TRAIN.DATASET} contains events. "
            "Set it False"
        )
    distill = cfg.DISTILL
    _check_file("TEACHER_CFG", distill.TEACHER_CFG, "the config of the teacher")
    as_tested = ["TRAIN.ENABLE", False, "TEST.ENABLE", True, "TEST.DATASET", cfg.TRAIN.DATASET]
    # with 3 crops, the short side does not depend on the config
    as_tested += ["TEST.NUM_ENSEMBLE_VIEWS", 1, "TEST.NUM_SPATIAL_CROPS", 3, "OUTPUT_DIR", cfg.OUTPUT_DIR]
    as_tested += ["TEST.CHECKPOINT_FILE_PATH", "", "DATA.DECODING_BACKEND", cfg.DATA.DECODING_BACKEND]
    as_tested += ["TEST.COMPILE", False, "TRACKING.BACKENDS", []]
    try:
        teacher_cfg = merge_config(distill.TEACHER_CFG, as_tested)
    except ConfigError as error:
        raise ConfigError(f"DISTILL.TEACHER_CFG {plain(distill.TEACHER_CFG)}: {error}") from error
    if teacher_cfg.MODEL.NUM_CLASSES != cfg.MODEL.NUM_CLASSES:
        raise ConfigError(
            f"DISTILL.TEACHER_CFG {plain(distill.TEACHER_CFG)}: MODEL.NUM_CLASSES ({teacher_cfg.MODEL.NUM_CLASSES}) "
            f"must equal the student's ({cfg.MODEL.NUM_CLASSES})"
        )
    teacher_cfg.freeze()
    return teacher_cfg


def check_teacher_weights(cfg: ConfigNode) -> None:
    """Raise ConfigError if training uses distillation and the teacher's weights are missing."""
    if cfg.TRAIN.ENABLE and cfg.DISTILL.ENABLE:
        what = f"the trained weights of {cfg.DISTILL.TEACHER_CFG}"
        _check_file("TEACHER_CHECKPOINT", cfg.DISTILL.TEACHER_CHECKPOINT, what)


def _check_file(key: str, name: str, what: str) -> None:
    """Raise ConfigError unless a DISTILL key names an existing file."""
    if not name:
        raise ConfigError(
            f"DISTILL.{key} is empty, but DISTILL.ENABLE is True. Set it to {what}, or set DISTILL.ENABLE False"
        )
    if wrong := why_not_regular(name):
        raise ConfigError(f"DISTILL.{key}: {plain(name)} {wrong}.{did_you_mean(nearest_file(name))}")


def check_teacher(cfg: ConfigNode) -> None:
    """Raise ConfigError unless the teacher accepts the student's training clips; weights are not read."""
    kind, side = find_dataset(cfg, TRAIN).input_kind, cfg.DATA.TRAIN_CROP_SIZE
    teacher_cfg = load_teacher_config(cfg)
    frames = (cfg.DATA.NUM_FRAMES,) if kind == CLIPS else ()
    with torch.device("meta"), torch.no_grad():  # computes shapes only
        teacher, clip = build_model(teacher_cfg).eval(), torch.empty(1, 3, *frames, side, side)
        try:
            teacher(clip)
        except UserError as error:
            size = " x ".join(map(str, (*frames, side, side)))
            raise ConfigError(
                f"DISTILL.TEACHER_CFG {plain(cfg.DISTILL.TEACHER_CFG)}: the teacher does not accept the student's "
                f"clips of {size} ({error})"
            ) from error
