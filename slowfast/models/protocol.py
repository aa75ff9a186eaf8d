"""Base class of all networks, with every hook, and the kinds of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import nn

from slowfast.errors import ConfigError
from slowfast.utils.registry import ClassRegistry

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


IMAGES, CLIPS, EVENTS = "images", "clips", "events"
Events = dict[str, torch.Tensor]  # x, y, t, p (B, L) and valid (B, L) bool
EVENT_KEYS = ("x", "y", "t", "p", "valid")
MIXED = "mixed"  # (B, L) bool in a mixed batch: tokens that are replaced by those of the mirrored recording
MASKED = "masked"  # (B, L) bool in a batch of pre-training: events whose coordinates are predicted


def check_input(network: type[Network], framewise: bool, dataset: str, kind: str) -> None:
    """Raise ConfigError unless a network accepts the samples of a dataset.

    Args:
        network: Class of the network.
        framewise: Whether it runs on each frame of a clip (MODEL.FRAMEWISE).
        dataset: Name of the dataset, for the message.
        kind: What the dataset contains: ``IMAGES``, ``CLIPS`` or ``EVENTS``.
    """
    wanted, name = network.input_kind, network.__name__
    if framewise and wanted != IMAGES:
        raise ConfigError(f"MODEL.FRAMEWISE is for image networks, but {name} takes {wanted}. Leave it empty")
    if framewise and kind != CLIPS:
        raise ConfigError(f"MODEL.FRAMEWISE is for clips, but the dataset {dataset} contains {kind}. Leave it empty")
    if framewise or wanted == kind:
        return
    problem = f"{name} takes {wanted}, but the dataset {dataset} contains {kind}"
    if wanted == IMAGES and kind == CLIPS:
        raise ConfigError(f"{problem}. Set MODEL.FRAMEWISE logits")
    raise ConfigError(f"{problem}. Choose another MODEL.MODEL_NAME or another dataset")


def input_shape(network: Network, frames: int, side: int) -> tuple[int, ...]:
    """Return the shape of one input: (3, frames, side, side) of a clip or (3, side, side) of an image.

    Raises:
        ConfigError: If the network takes neither.
    """
    kind = network.input_kind
    if kind not in (CLIPS, IMAGES):
        raise ConfigError(f"MODEL.MODEL_NAME: {type(network).__name__} takes {kind}, not clips or images")
    return (3, frames, side, side) if kind == CLIPS else (3, side, side)


def check_image(x: torch.Tensor) -> None:
    """Raise ConfigError unless x is a batch of images (B, 3, H, W)."""
    if x.dim() != 4:
        raise ConfigError(
            f"MODEL.MODEL_NAME: this network takes images (B, 3, H, W), not {tuple(x.shape)}. "
            "For clips set MODEL.FRAMEWISE logits"
        )


def check_events(events: Events) -> None:
    """Raise ConfigError unless x is a batch of events: a dict of tensors (B, L)."""
    if not isinstance(events, dict) or any(key not in events for key in EVENT_KEYS):
        raise ConfigError(
            f"MODEL.MODEL_NAME: this network takes a dict of {', '.join(EVENT_KEYS)}, each (B, L). Choose a dataset of "
            "event recordings"
        )


StateDict = dict[str, torch.Tensor]


@dataclass(frozen=True)
class LoadedWeights:
    """Checkpoint whose weights were loaded into a network.

    Attributes:
        path: File or address, without credentials.
        choice: ``given`` by its path, or ``last`` or ``best`` of OUTPUT_DIR.
        epoch: Epochs of training of a last or best checkpoint; None if unknown.
        class_names: Names of all classes in the file; None if it has none.
    """

    path: str
    choice: str = "given"
    epoch: int | None = None
    class_names: tuple[str, ...] | None = None

    @property
    def note(self) -> str:
        """Return which checkpoint of the run it is, in parentheses; empty for a given file."""
        what = {"last": "last checkpoint", "best": "best validation"}.get(self.choice)
        epoch = "" if self.epoch is None else f", epoch {self.epoch}"
        return f" ({what}{epoch})" if what else ""


class FeatureMap:
    """Mixin of layers whose output is a feature map, so that Grad-CAM can draw it.

    Convolutions and batch normalization need no mixin.
    """

    MAP_AXES: ClassVar[str]  # order of the output's axes: letters of BTHWC, or BNC for tokens (see `Network.on_grid`)


class Network(nn.Module):
    """Base class of all networks in `MODEL_REGISTRY`.

    A subclass has plain constructor arguments, named as the config keys, and returns logits of shape (B, num_classes)
    in training and in evaluation. It implements `from_config`, and `features` and `classify` or, where these two cannot
    be told apart, `forward`. All other hooks have defaults. Layers must not be called ``features`` or ``classify``.

    Attributes:
        input_kind: What the network takes: ``CLIPS`` (B, 3, T, H, W), ``IMAGES`` (B, 3, H, W) or ``EVENTS`` (a dict of
            tensors ``x``, ``y``, ``t``, ``p`` and ``valid``, each (B, L)).
        takes_pretrain_path: Whether MORPH.PRETRAIN_PATH names weights for this network, see `adapt_pretrained`.
        pretraining: Whether this instance is trained on the targets of `pretext` instead of labels.
        predicts_coordinates: Whether the targets of `pretext` are coordinates of events (M, 3) instead of classes (M,).
        mixes_tokens: Whether the network replaces the tokens of events with `MIXED`.
        loaded: Checkpoint whose weights were loaded for testing; None for others.
    """

    input_kind: ClassVar[str] = CLIPS
    takes_pretrain_path: ClassVar[bool] = False
    pretraining: bool = False
    predicts_coordinates: ClassVar[bool] = False
    mixes_tokens: ClassVar[bool] = False
    loaded: LoadedWeights | None = None

    # ------------------------------------------------------------------ construction
    @classmethod
    def from_config(cls, cfg: ConfigNode) -> Self:
        """Build the network that a config describes, with random weights."""
        return cls(num_classes=cfg.MODEL.NUM_CLASSES)

    @staticmethod
    def check_config(cfg: ConfigNode) -> None:
        """Raise ConfigError, without building the network, for invalid settings."""

    # ------------------------------------------------------------------ inference
    def forward(self, x: Any) -> torch.Tensor:
        """Return the logits (B, num_classes)."""
        return self.classify(self.features(x))

    def features(self, x: Any) -> torch.Tensor:
        """Return the input of the head, (B, D)."""
        raise NotImplementedError(f"{type(self).__name__} does not implement features(x)")

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, num_classes) of features (B, D)."""
        raise NotImplementedError(f"{type(self).__name__} does not implement classify(features)")

    def dense_features(self, x: Any) -> torch.Tensor:
        """Return the last feature map before pooling, (B, C, H, W) of images and (B, C, T, H, W) of clips."""
        raise NotImplementedError(f"{type(self).__name__} does not implement dense_features(x)")

    def forward_heads(self, x: Any) -> tuple[torch.Tensor, ...]:
        """Return the logits of each head, (B, num_classes): of the classes and, if distilled, of the teacher."""
        return (self(x),)

    def classify_heads(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the logits of each head, (B, num_classes), of features (B, D)."""
        return (self.classify(features),)

    def on_grid(self, values: torch.Tensor) -> torch.Tensor:
        """Arrange one value per token of a layer with axes BNC as in the image: (B, N) -> (B, H, W)."""
        raise NotImplementedError(f"{type(self).__name__} has a layer of tokens but does not implement on_grid(values)")

    def pretext(self, x: Any) -> tuple[Any, torch.Tensor]:
        """Return partly masked inputs and the targets (M,) to predict, if `pretraining` is True."""
        raise NotImplementedError(f"{type(self).__name__} does not implement pretext(x)")

    # ------------------------------------------------------------------ parameters and weights
    def head_names(self) -> tuple[str, ...]:
        """Return the names of the layers that compute class scores.

        Only these are trained with MODEL.FREEZE_BACKBONE and replaced when the number of classes changes.
        """
        return ("head",)

    def no_weight_decay(self) -> tuple[str, ...]:
        """Return the names of parameters without weight decay, besides those of one dimension."""
        return ()

    def blocks_by_stage(self) -> list[list[str]] | None:
        """Return the names of the blocks of each stage, input first, such as ``[["blks.0.2", "blks.0.3"], ...]``.

        They number the layers for SOLVER.LAYER_DECAY and the stages for MODEL.FREEZE. None finds them by the structure
        of the network, see :func:`~slowfast.engine.parameters.find_blocks`.
        """
        return None

    def adapt_start_weights(self, state: StateDict, path: str | Path) -> StateDict:
        """Adapt weights for other inputs, such as images of another size, when training starts from them.

        Args:
            state: State dict read from TRAIN.CHECKPOINT_FILE_PATH.
            path: The file, for messages.

        Returns:
            The state dict of this network; `state` itself if there is nothing to adapt.
        """
        return state

    def adapt_pretrained(self, state: StateDict) -> StateDict:
        """Convert the weights of MORPH.PRETRAIN_PATH, such as those of an image network, to this network's."""
        raise ConfigError(
            f"MORPH.PRETRAIN_PATH is set, but {type(self).__name__} has no use for it. Set it to an empty string"
        )

    @property
    def named(self) -> nn.Module:
        """Module whose parameters and layers are named as in the state dict; a wrapper returns what it wraps."""
        return self


def named_network(model: nn.Module) -> nn.Module:
    """Return the module whose parameters and layers are named as in the model's state dict."""
    return model.named if isinstance(model, Network) else model


MODEL_REGISTRY: ClassRegistry[Network] = ClassRegistry("MODEL", Network)
