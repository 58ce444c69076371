"""The losses that have a name, made of the arguments of a training."""

from __future__ import annotations

from datasets import Dataset, IterableDataset

from ..losses.alignment import GreedyLoss, Loss, OTLoss, mse_loss
from ..losses.score_bank import ScoreBank, first_sentences
from ..models.modeling_optical import OpticalTeacher
from .distillation_args import OpticalTrainingArguments

_SENTENCES_WITH_TOKENS = 256  # the mean token vector hardly moves with more, and MaxSim gets slow


def make_loss(
    name: str, args: OpticalTrainingArguments, teacher: OpticalTeacher, train_dataset: Dataset | IterableDataset | None
) -> Loss:
    """Make the loss `"ot"`, `"greedy"` or `"mse"`, with its bank of English sentences if it scores them.

    Args:
        name (`str`): of the loss.
        args ([`OpticalTrainingArguments`]): its weights, and the solver of the transport.
        teacher ([`OpticalTeacher`]): encodes the bank and the mean token vector.
        train_dataset (`Dataset` or `IterableDataset`, *optional*): where their sentences come from.

    Raises:
        ValueError: if there is no such loss, or all of its weights are 0.
    """
    if name == "mse":
        return mse_loss
    if name not in ("ot", "greedy"):
        raise ValueError(f"Unknown loss {name!r}: choose 'ot', 'greedy', 'mse', or pass a callable.")
    if not (args.token_weight or args.pooled_weight or args.score_weight):
        raise ValueError("`token_weight`, `pooled_weight` and `score_weight` are all 0: nothing would be learnt.")
    centre, bank = None, None
    if train_dataset is not None and (args.centre or args.score_weight):
        size = args.bank_size if args.score_weight else _SENTENCES_WITH_TOKENS
        made = ScoreBank.encode(
            teacher,
            first_sentences(train_dataset, size),
            args.roles[0],
            _SENTENCES_WITH_TOKENS,
            pooled_temperature=args.pooled_temperature,
            token_temperature=args.token_temperature,
        )
        centre, bank = (made.mean if args.centre else None), (made if args.score_weight else None)
    weights = {name: getattr(args, name) for name in ("token_weight", "pooled_weight", "score_weight")}
    if name == "greedy":
        return GreedyLoss(**weights, centre=centre, bank=bank)
    names = ("solver", "epsilon", "iterations", "reg_m", "partial_mass")
    return OTLoss(**weights, centre=centre, bank=bank, **{name: getattr(args, name) for name in names})
