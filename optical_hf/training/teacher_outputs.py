"""The teacher's outputs, kept from one epoch to the next."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..models.modeling_optical import OpticalOutput, OpticalTeacher

logger = logging.getLogger(__name__)


class TeacherOutputs:
    """Run a teacher on the texts of a batch that it has not seen yet, and give what it said of the others.

    A teacher does not change, so a text has the same vectors in every epoch, beside the translation into each
    language, and as a pair with itself: the same but for the rounding of another batch, about 1e-7.

    Args:
        teacher ([`OpticalTeacher`]): on its device already; outputs are kept there.
        memory (`float`): gigabytes kept at most; when they are full, no further text is kept.
    """

    def __init__(self, teacher: OpticalTeacher, memory: float) -> None:
        self.teacher = teacher
        self.room = int(memory * 1e9)
        self._kept: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, keys: Sequence[str], batch: dict[str, Tensor]) -> OpticalOutput:
        """Return the teacher's output of a batch.

        Args:
            keys (`Sequence[str]`): what names each text, and the role it is encoded in.
            batch (`dict[str, torch.Tensor]`): the teacher's inputs.
        """
        rows = {key: row for row, key in enumerate(keys) if key not in self._kept}  # of each text once
        if len(rows) == len(keys):
            output: OpticalOutput = self.teacher(**batch)
            self._keep(rows, output)
            return output
        fresh: dict[str, tuple[Tensor, Tensor]] = {}
        if rows:
            chosen = {name: tensor[list(rows.values())] for name, tensor in batch.items()}
            output = self.teacher(**chosen)
            fresh = dict(zip(rows, zip(output.token_vectors, output.pooled, strict=True), strict=True))
            self._keep(dict(zip(rows, range(len(rows)), strict=True)), output)
        vectors, pooled = zip(*(fresh[key] if key in fresh else self._kept[key] for key in keys), strict=True)
        width = batch["input_ids"].shape[1]  # texts are padded on the right: what is cut off is padding
        tokens = torch.stack([pad(each[:width], (0, 0, 0, width - min(width, len(each)))) for each in vectors])
        return OpticalOutput(
            token_vectors=tokens, scoring_mask=batch["scoring_mask"].bool(), pooled=torch.stack(pooled)
        )

    def _keep(self, rows: dict[str, int], output: OpticalOutput) -> None:
        size = sum(tensor.numel() * tensor.element_size() for tensor in (output.token_vectors, output.pooled))
        if size > self.room:
            if self.room:
                logger.info("The teacher's outputs of %d texts are kept: `teacher_memory` is full.", len(self._kept))
            self.room = 0
            return
        self.room -= size
        for key, row in rows.items():
            self._kept[key] = output.token_vectors[row], output.pooled[row]
