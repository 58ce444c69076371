"""The numbers of a loss between two logs, over all processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from accelerate.utils import gather_object
from torch import Tensor

from ..models.modeling_optical import OpticalOutput


class LoggedNumbers:
    """Sums and counts by name, added at every batch and taken, as means, at every log."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))

    def add(self, numbers: Mapping[str, Tensor | float], count: int = 1) -> None:
        """Add numbers by name, each the sum of `count` values."""
        for name, value in numbers.items():
            total, before = self._sums[name]
            self._sums[name] = total + float(value), before + count

    @torch.no_grad()
    def add_spread(self, student: OpticalOutput) -> None:
        """Add how far a batch's token vectors lie from their mean: a student that collapses shows here first."""
        tokens = student.token_vectors[student.scoring_mask].float()
        self.add({"vector_spread": (tokens - tokens.mean(0)).square().sum(-1).mean().sqrt()})

    def add_by_language(self, losses: Tensor, language_ids: Tensor, languages: Sequence[str]) -> None:
        """Add the losses of a batch, `(batch,)`, under the language of each pair."""
        for index in language_ids.unique().tolist():
            chosen = losses[language_ids == index]
            self.add({f"loss_{languages[index]}": chosen.sum()}, len(chosen))

    def take(self) -> dict[str, float]:
        """Return the means over all processes, by name, and begin anew."""
        sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0])
        for process in gather_object([dict(self._sums)]):
            for name, (total, count) in process.items():
                sums[name][0] += total
                sums[name][1] += count
        self._sums.clear()
        return {name: total / count for name, (total, count) in sorted(sums.items())}
