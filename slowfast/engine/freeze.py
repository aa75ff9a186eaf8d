"""Training the head alone: the backbone keeps its weights and its batch-norm statistics (MODEL.FREEZE_BACKBONE)."""

from __future__ import annotations

from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.weights import head_names, is_head
from slowfast.runtime.logging import get_logger


def freeze_backbone(model: nn.Module) -> None:
    """Let nothing but the head want gradients, and say how much that leaves; ConfigError where there is no head."""
    heads = head_names(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_head(name, heads))
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise ConfigError(f"MODEL.FREEZE_BACKBONE: {type(model).__name__} has no layer called {' or '.join(heads)}")
    total = sum(p.numel() for p in model.parameters())
    get_logger().info(
        f"MODEL.FREEZE_BACKBONE: {sum(trained.values()):,} of {total:,} parameters train: {', '.join(trained)}"
    )


def freeze_modes(model: nn.Module) -> None:
    """Evaluation mode for every layer with nothing to train: no statistics move, nothing is dropped."""
    for module in model.modules():
        if module.training and not any(p.requires_grad for p in module.parameters()):
            module.train(False)
