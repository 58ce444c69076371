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
        ValueError: if it has fewer layers, shares weights between its layers, or has them where they cannot be found.
    """
    backbone = student.backbone
    if embeddings:
        module = getattr(backbone, "embeddings", None)
        (module if isinstance(module, nn.Module) else backbone.get_input_embeddings()).requires_grad_(False)
    if layers:
        count = backbone.config.num_hidden_layers
        if layers > count:
            raise ValueError(f"`freeze_layers` is {layers}, and the student has {count} layers.")
        for stack in _layer_stacks(backbone, count):
            stack[:layers].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise ValueError("Embeddings and all layers are frozen: nothing of the student is left to train.")


def _layer_stacks(backbone: nn.Module, count: int) -> list[nn.ModuleList]:
    # One list of layers; or, as in XLM and FlauBERT, one list of each part of a layer, all in one module.
    owners = {
        name.rpartition(".")[0]: module
        for name, module in backbone.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    }
    if not owners:
        raise ValueError(
            f"`freeze_layers`: {type(backbone).__name__} has no list of its {count} layers. They may share "
            "their weights, as ALBERT's do, and cannot be frozen one by one: leave it at 0."
        )
    owner = backbone.get_submodule(min(owners, key=lambda name: name.count(".")))
    return [one for one in owner.children() if isinstance(one, nn.ModuleList) and len(one) == count]


def set_dropout(student: OpticalModel, probability: float) -> None:
    """Set the probability of every dropout; what the checkpoint's configuration says is left as it is."""
    for module in student.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        if isinstance(getattr(module, "attention_dropout", None), float):  # as ModernBERT keeps it
            module.attention_dropout = probability  # type: ignore[assignment]
