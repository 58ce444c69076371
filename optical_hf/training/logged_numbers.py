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
        # Tensors of where they were computed: to look at them, the CPU would have to wait for an accelerator.
        self._sums: defaultdict[str, tuple[Tensor | float, int]] = defaultdict(lambda: (0.0, 0))
        self._by_language: dict[str, Tensor] = {}  # losses, and numbers of them

    def add(self, numbers: Mapping[str, Tensor | float], count: int = 1) -> None:
        """Add numbers by name, each the sum of `count` values."""
        for name, value in numbers.items():
            total, before = self._sums[name]
            self._sums[name] = total + (value.detach() if isinstance(value, Tensor) else value), before + count

    @torch.no_grad()
    def add_spread(self, student: OpticalOutput) -> None:
        """Add how far a batch's token vectors lie from their mean: a student that collapses shows here first."""
        tokens, mask = student.token_vectors.float(), student.scoring_mask[..., None]
        mean = (tokens * mask).sum((0, 1)) / mask.sum()
        self.add({"vector_spread": (((tokens - mean) * mask).square().sum() / mask.sum()).sqrt()})

    def add_by_language(self, losses: Tensor, language_ids: Tensor, languages: Sequence[str]) -> None:
        """Add the losses of a batch, `(batch,)`, under the language of each pair."""
        added = losses.new_zeros(len(languages), 2).index_add(
            0, language_ids, torch.stack([losses, torch.ones_like(losses)], 1)
        )
        names = ",".join(languages)
        self._by_language[names] = self._by_language.get(names, 0) + added

    def take(self) -> dict[str, float]:
        """Return the means over all processes, by name, and begin anew."""
        own = {name: (float(total), float(count)) for name, (total, count) in self._sums.items()}
        for names, rows in self._by_language.items():
            losses = zip(names.split(","), rows.tolist(), strict=True)
            own |= {f"loss_{language}": (total, count) for language, (total, count) in losses if count}
        self._by_language.clear()
        sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for process in gather_object([own]):
            for name, (total, count) in process.items():
                sums[name][0] += total
                sums[name][1] += count
        self._sums.clear()
        return {name: total / count for name, (total, count) in sorted(sums.items())}
