"""Whether what a step computes is finite, asked when the answer costs nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_MOST = 300  # checks that wait, since each holds on to its batch


class FiniteChecks:
    """Checks of a training's numbers: at once on the CPU; all together, at a log or a save, on an accelerator.

    To look at a number there, the CPU waits until the accelerator has done all work before it.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Tensor, Callable[[list[int]], str]]] = []

    def add(self, values: Tensor, rows: int, describe: Callable[[list[int]], str]) -> None:
        """Add numbers of a batch.

        Args:
            values (`torch.Tensor`): `rows` times so many numbers, row by row.
            rows (`int`): how many there are.
            describe (callable): makes the error's text of the rows that are not finite.

        Raises:
            FloatingPointError: as [`~FiniteChecks.check`].
        """
        self._waiting.append((values.detach().isfinite().reshape(rows, -1).all(1), describe))
        if values.device.type == "cpu" or len(self._waiting) >= _MOST:
            self.check()

    def check(self) -> None:
        """Look at what was added.

        Raises:
            FloatingPointError: if some of it is not finite, with the text of the first.
        """
        waiting, self._waiting = self._waiting, []
        if waiting and not torch.cat([finite for finite, _ in waiting]).all():
            finite, describe = next(each for each in waiting if not each[0].all())
            raise FloatingPointError(describe((~finite).nonzero()[:, 0].tolist()))
