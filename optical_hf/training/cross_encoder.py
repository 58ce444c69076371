"""Training a cross-encoder to rerank, on sentence-transformers' trainer: rows, losses, and what it is measured by."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..bounds import check_count, check_fields, check_number, check_training
from ..metrics import NDCG
from ..metrics.miracl_ndcg.miracl_ndcg import score_run
from ..retrieval.reranking import score_pairs
from .resuming import write_settings

try:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments, losses
except ImportError as error:
    raise ImportError('Cross-encoders need sentence-transformers: pip install "optical-hf[rerank]".') from error

logger = logging.getLogger(__name__)

LOSSES = ("lambda", "listnet", "bce")


@dataclass
class CrossEncoderArguments(CrossEncoderTrainingArguments):
    """
    How it is trained: arguments of [`cross_encoder_trainer`].

    All those of `CrossEncoderTrainingArguments` of sentence-transformers are there as well.
    These defaults differ: `learning_rate` is 2e-5, `num_train_epochs` 1, `per_device_train_batch_size` 16,
    `warmup_steps` 0.1 (a share of all steps), `logging_steps` 10 and `save_total_limit` 2.

    Args:
        loss (`str`, *optional*, defaults to `"lambda"`):
            `"lambda"` (LambdaLoss, Wang et al., CIKM 2018), `"listnet"` (Cao et al., ICML 2007) or `"bce"`, binary
            cross-entropy of single pairs. ListNet learns the scores of the rows, if they have some.
        held_out (`int`, *optional*, defaults to 100):
            Queries that are not trained on, but measured.
    """

    loss: str = field(default="lambda", metadata={"help": "What is learnt by.", "choices": list(LOSSES)})
    held_out: int = field(default=100, metadata={"help": "Queries that are not trained on, but measured."})

    learning_rate: float = field(default=2e-5, metadata={"help": "The peak learning rate."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the rows."})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Queries a device and step; bce: pairs."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Steps of warm-up; below 1, a share of all steps."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between logs."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept."})

    def __post_init__(self) -> None:
        check_training(self)
        check_fields(self, check_count, "held_out")
        check_fields(self, check_number, "warmup_ratio", most=1)
        super().__post_init__()
        if self.device.type == "cpu":  # there is nothing to pin memory for, and torch warns of it
            self.dataloader_pin_memory = False
        if self.loss not in LOSSES:
            raise ValueError(f"Unknown loss {self.loss!r}: choose one of {', '.join(LOSSES)}.")
        if self.push_to_hub:
            raise ValueError("`push_to_hub` would push files of this machine: use `optical-hf push` afterwards.")


@dataclass(frozen=True)
class RankedRow:
    """A query and its passages, the one that answers it first.

    Args:
        query (`str`): the query.
        passages (`list[str]`): the positive passage, then the negative ones, perhaps none.
        scores (`list[float]`, *optional*): of a teacher, one a passage; higher is better.
    """

    query: str
    passages: list[str]
    scores: list[float] | None = None


def rows_to_rank(rows: Iterable[RankedRow]) -> tuple[list[RankedRow], dict[str, int]]:
    """Drop the rows without a negative passage: there is nothing to rank in them.

    Args:
        rows (`Iterable[RankedRow]`): the rows.

    Returns:
        `tuple`: the other rows, and the counts `kept` and `without_negatives`.

    Raises:
        ValueError: if some of them have scores and some have none, or if no row is left.
    """
    read = list(rows)
    kept = [row for row in read if len(row.passages) > 1]
    if not kept:
        raise ValueError("No row is left to train on: each needs a positive passage and at least one negative one.")
    if dropped := len(read) - len(kept):
        logger.warning("%d of the %d rows have no negative passage, and are left out.", dropped, len(read))
    if (scored := sum(row.scores is not None for row in kept)) not in (0, len(kept)):
        raise ValueError(f"{scored} of the {len(kept)} rows have scores: give them to all rows, or to none.")
    return kept, {"kept": len(kept), "without_negatives": dropped}


def hold_out_queries(rows: Sequence[RankedRow], count: int, seed: int = 0) -> tuple[list[RankedRow], list[RankedRow]]:
    """Keep some queries out of the training, with all of their rows.

    Args:
        rows (`Sequence[RankedRow]`): of [`rows_to_rank`].
        count (`int`): how many queries.
        seed (`int`, *optional*, defaults to 0): of the choice.

    Returns:
        `tuple[list[RankedRow], list[RankedRow]]`: the rows to train on, and those held out.

    Raises:
        ValueError: if no query would be left to train on.
    """
    queries = sorted({row.query for row in rows})
    if count >= len(queries):
        raise ValueError(f"held_out is {count}, and there are {len(queries)} queries: none is left to train on.")
    chosen = set(random.Random(seed).sample(queries, count))
    return [row for row in rows if row.query not in chosen], [row for row in rows if row.query in chosen]


def cross_encoder_trainer(
    model: CrossEncoder, rows: Sequence[RankedRow], args: CrossEncoderArguments
) -> CrossEncoderTrainer:
    """Make the trainer of a cross-encoder: sentence-transformers' own, on rows.

    By `"lambda"` and `"bce"` the positive passage is worth 1 and each negative one 0. By `"listnet"` the softmax of a
    query's scores is learnt, and of 1 and 0 where rows have no scores.

    Args:
        model (`CrossEncoder`):
            Of one score a pair: see [`load_cross_encoder`].
        rows (`Sequence[RankedRow]`):
            Of [`rows_to_rank`].
        args ([`CrossEncoderArguments`]):
            The arguments.

    Returns:
        `CrossEncoderTrainer`: call its `train`.

    Example:

    ```python
    >>> rows, counts = rows_to_rank([RankedRow("Who wrote it?", ["She wrote it.", "It rains."])])
    >>> model = load_cross_encoder("intfloat/multilingual-e5-small", num_labels=1)
    >>> cross_encoder_trainer(model, rows, CrossEncoderArguments("reranker")).train()
    >>> model.save_pretrained("reranker")
    ```
    """
    labels = [
        row.scores if args.loss == "listnet" and row.scores else [1.0] + [0.0] * (len(row.passages) - 1)
        for row in rows
    ]
    if args.loss != "listnet" and rows[0].scores:
        logger.warning("The rows' scores are not used by the loss %r; 'listnet' learns them.", args.loss)
    loss: nn.Module
    if args.loss == "bce":
        loss = losses.BinaryCrossEntropyLoss(model)
        dataset = Dataset.from_dict(
            {
                "query": [row.query for row in rows for _ in row.passages],
                "passage": [text for row in rows for text in row.passages],
                "label": [label for each in labels for label in each],
            }
        )
    else:
        loss = losses.LambdaLoss(model) if args.loss == "lambda" else losses.ListNetLoss(model)
        dataset = Dataset.from_dict(
            {"query": [row.query for row in rows], "passages": [row.passages for row in rows], "label": labels}
        )
    return CrossEncoderTrainer(model=model, args=args, train_dataset=dataset, loss=loss)


class SettingsKeeper(TrainerCallback):
    """Writes into every checkpoint what its training was made of, and how long it took until then.

    Args:
        settings (`Mapping[str, Any]`): what the training is made of.
        seconds_before (`float`): how long it had taken until the checkpoint that is gone on from.
    """

    def __init__(self, settings: Mapping[str, Any], seconds_before: float) -> None:
        self.settings, self.seconds_before = settings, seconds_before
        self._started = time.time()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the file once every process has written its state."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            seconds = self.seconds_before + time.time() - self._started
            write_settings(folder, self.settings, seconds, whole=True)


def measure_rows(model: CrossEncoder, rows: Sequence[RankedRow], batch_size: int = 32) -> float:
    """Rank the passages of each row, and return the mean nDCG@10 of the positive one.

    Args:
        model (`CrossEncoder`): of one score a pair.
        rows (`Sequence[RankedRow]`): such as held-out ones.
        batch_size (`int`, *optional*, defaults to 32): pairs a forward pass.
    """
    topics = {str(number): row.query for number, row in enumerate(rows)}
    # The positive passage has the least id of its row, so that ties count against it.
    texts = {f"{n}.{place:06}": text for n, row in enumerate(rows) for place, text in enumerate(row.passages)}
    candidates = {str(n): [f"{n}.{place:06}" for place in range(len(row.passages))] for n, row in enumerate(rows)}
    run = score_pairs(model, topics, texts, candidates, batch_size)
    return float(score_run(run, {qid: {docids[0]: 1} for qid, docids in candidates.items()}, measures=[NDCG])[NDCG])
