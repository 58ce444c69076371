"""Batches of one language pair each: monolingual with a given probability, else cross-lingual (arXiv 2408.10536)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler
from transformers import Trainer

from ..data.bitext_sampling import language_probabilities

logger = logging.getLogger(__name__)


class HybridSampler(Sampler[int]):
    """Rows in an order whose every batch is of one language pair.

    A batch is monolingual with probability `alpha`, else cross-lingual; then its pair is drawn, in proportion to
    `rows ** (1 / temperature)` of the pairs of its kind. The rows of a pair all come before one of them comes again.
    The order is a function of the seed and the epoch: the same in every process, and after a resume.

    Args:
        pairs (`Sequence[tuple[str, str]]`):
            The languages of query and passage, or of the two sides of bitext, of every row.
        batch_size (`int`):
            Rows a batch, those of all processes together.
        alpha (`float`):
            Probability of a monolingual batch, 0 to 1.
        trainer ([`~transformers.Trainer`]):
            Knows the seed and the epoch.
        temperature (`float`, *optional*, defaults to 1.0):
            1 draws pairs in proportion to their rows; larger evens them out.

    Raises:
        ValueError: if `alpha` is no probability, there is no row of a kind that it asks for, or a pair that takes part
            has fewer rows than a batch.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        batch_size: int,
        alpha: float,
        trainer: Trainer,
        temperature: float = 1.0,
    ) -> None:
        if not 0 <= alpha <= 1:
            raise ValueError(f"`alpha` is {alpha}; it has to lie between 0 and 1.")
        rows: dict[tuple[str, str], list[int]] = {}
        for row, pair in enumerate(pairs):
            rows.setdefault((pair[0], pair[1]), []).append(row)
        self.batch_size, self.alpha, self.trainer = batch_size, alpha, trainer
        self.kinds = tuple(
            {pair: np.array(rows[pair]) for pair in sorted(rows) if (pair[0] == pair[1]) is alike}
            for alike in (True, False)
        )
        for kind, share, name in zip(self.kinds, (alpha, 1 - alpha), ("monolingual", "cross-lingual"), strict=True):
            if share and not kind:
                raise ValueError(f"`alpha` is {alpha}, and there is no {name} row, of {len(pairs)}.")
            if kind and not share:
                unused = sum(map(len, kind.values()))
                logger.warning("`alpha` is %s: the %d %s rows are not trained on.", alpha, unused, name)
            for pair, many in kind.items():
                if share and len(many) < batch_size:
                    raise ValueError(
                        f"{'-'.join(pair)} has {len(many)} rows, fewer than the {batch_size} of a batch: give more of "
                        "them, or make `per_device_train_batch_size` smaller."
                    )
        self.shares = [
            np.array(
                list(
                    language_probabilities(
                        {"-".join(pair): len(many) for pair, many in kind.items()}, temperature
                    ).values()
                )
            )
            for kind in self.kinds
        ]
        self.batches = (
            sum(
                len(many)
                for kind, share in zip(self.kinds, (alpha, 1 - alpha), strict=True)
                if share
                for many in kind.values()
            )
            // batch_size
        )

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[int]:
        args = self.trainer.args
        seed = args.seed if args.data_seed is None else args.data_seed
        random = np.random.default_rng([seed, int(self.trainer.state.epoch or 0)])
        left: dict[tuple[str, str], np.ndarray] = {}
        for _ in range(self.batches):
            kind = 0 if random.random() < self.alpha else 1
            pair = list(self.kinds[kind])[random.choice(len(self.shares[kind]), p=self.shares[kind])]
            waiting = left.get(pair, np.array([], dtype=np.int64))
            if len(waiting) < self.batch_size:  # those that wait go first; in the next round last, so as not to meet
                order = random.permutation(self.kinds[kind][pair])
                again = np.isin(order, waiting)
                waiting = np.concatenate([waiting, order[~again], order[again]])
            left[pair] = waiting[self.batch_size :]
            yield from waiting[: self.batch_size].tolist()
