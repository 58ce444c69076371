"""Which parts of a student stay as they are while it trains."""

from __future__ import annotations

import logging
from collections import Counter
from itertools import islice

from datasets import Dataset, IterableDataset
from torch import nn

from ..models.modeling_optical import OpticalModel

logger = logging.getLogger(__name__)


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


def warn_of_added_tokens(student: OpticalModel, dataset: Dataset | IterableDataset) -> None:
    """Warn of tokens that were added to the tokenizer and occur in the bitext, while the embeddings are frozen.

    Whoever adds tokens resizes the table of embeddings, and its new rows are random until they are trained. Whether
    they were is not to be seen, nor are tokens that were merged into the vocabulary itself. Special tokens are left
    out: they come with the checkpoint.

    Args:
        student ([`OpticalStudent`]): the model, with its tokenizer.
        dataset (`Dataset` or `IterableDataset`): bitext, whose first 100,000 translations are read.
    """
    tokenizer = student.tokenizer
    added = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items() if not token.special}
    if not added:
        return
    counts: Counter[int] = Counter()
    read = 0
    for pair in islice(dataset, 100_000):
        read += 1
        counts.update(added.keys() & set(tokenizer.encode(pair["translation"], add_special_tokens=False)))
    if counts:
        logger.warning(
            "%d tokens that were added to the student's tokenizer are in the first %d translations, such as %s (in %d "
            "of them). The embeddings are frozen: rows of these tokens that were never trained stay random. If so, "
            "train them (`freeze_embeddings` false), or use the tokenizer without them.",
            len(counts), read, repr(added[counts.most_common(1)[0][0]]), counts.most_common(1)[0][1],
        )  # fmt: skip


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
