"""The order of training pairs, grouped by length, as a function of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler


class EpochSampler(Sampler[int]):
    """Seed a length-grouped sampler anew in every epoch.

    By itself it draws from the global random state. That state differs between processes, since dropout draws from it:
    some pairs would be left out and others come twice. Nor does a resumed run meet the same state.

    Args:
        sampler (`LengthGroupedSampler`): makes the order.
        trainer ([`~transformers.Trainer`]): knows the seed and the epoch.
    """

    def __init__(self, sampler: LengthGroupedSampler, trainer: Trainer) -> None:
        self.sampler = sampler
        self.trainer = trainer

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        args = self.trainer.args
        seed = args.seed if args.data_seed is None else args.data_seed
        self.sampler.generator = torch.Generator().manual_seed(seed + int(self.trainer.state.epoch or 0))
        return iter(self.sampler)
