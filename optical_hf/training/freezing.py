"""Which parts of a student stay as they are while it trains."""

from __future__ import annotations

from torch import nn

from ..models.modeling_optical import OpticalModel


def freeze(student: OpticalModel, embeddings: bool, layers: int) -> None:
    """Take the gradient from a student's embedding tables, and from its lower layers.

    Args:
        student ([`OpticalStudent`]): the model.
        embeddings (`bool`): whether its embeddings, of tokens and positions, are frozen.
        layers (`int`): how many of its layers are, counted from below.

    Raises:
        ValueError: if it has fewer layers.
    """
    backbone = student.backbone
    if embeddings:
        module = getattr(backbone, "embeddings", None)
        (module if isinstance(module, nn.Module) else backbone.get_input_embeddings()).requires_grad_(False)
    if layers:
        count = backbone.config.num_hidden_layers
        stacks = [one for one in backbone.modules() if isinstance(one, nn.ModuleList) and len(one) == count]
        if not stacks or layers > count:
            raise ValueError(f"`freeze_layers` is {layers}, and the student has {count} layers.")
        stacks[0][:layers].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise ValueError("Embeddings and all layers are frozen: nothing of the student is left to train.")


def set_dropout(student: OpticalModel, probability: float) -> None:
    """Set the probability of every dropout; what the checkpoint's configuration says is left as it is."""
    for module in student.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        if isinstance(getattr(module, "attention_dropout", None), float):  # as ModernBERT keeps it
            module.attention_dropout = probability  # type: ignore[assignment]
