"""From pairs of sentences to one batch for the teacher and one for the student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from ..models.modeling_optical import OpticalModel
from ..models.processing_optical import ROLES, process_texts


@dataclass
class DistillationCollator:
    """Tokenise English sentences for the teacher and their translations for the student, in one role a pair.

    Args:
        teacher, student ([`OpticalTeacher`], [`OpticalStudent`]):
            Give tokenizers, prefixes and lengths.
        languages (`list[str]`):
            Every language code that may occur; a pair's `language_ids` entry is its place in this list.
        roles (`Sequence[str]`, *optional*, defaults to `("query",)`):
            Pair `i` of a batch is encoded as `roles[i % len(roles)]` on both sides.

    Raises:
        ValueError: if there is no role or an unknown one, or a pair is of a language that is not in `languages`.
    """

    teacher: OpticalModel
    student: OpticalModel
    languages: list[str]
    roles: Sequence[str] = ("query",)

    def __post_init__(self) -> None:
        unknown = [role for role in self.roles if role not in ROLES]
        if unknown or not self.roles:
            raise ValueError(f"`roles` is {list(self.roles)}; it has to name 'query', 'document' or both.")

    def __call__(self, pairs: list[dict[str, str]]) -> dict[str, torch.Tensor]:
        """Return `language_ids` and `{teacher,student}_{input_ids,attention_mask,scoring_mask}`, `(batch, tokens)`."""
        try:
            ids = [self.languages.index(pair["language"]) for pair in pairs]
        except ValueError:
            unknown = sorted({pair["language"] for pair in pairs} - set(self.languages))
            raise ValueError(f"A pair has the language {unknown[0]!r}, not one of {self.languages}.") from None
        batch = {"language_ids": torch.tensor(ids)}
        for side, model, column in (("teacher", self.teacher, "english"), ("student", self.student, "translation")):
            tensors = self._side(model, [pair[column] for pair in pairs])
            batch |= {f"{side}_{name}": tensor for name, tensor in tensors.items()}
        return batch

    def _side(self, model: OpticalModel, texts: list[str]) -> dict[str, torch.Tensor]:
        if len(self.roles) == 1:
            return process_texts(texts, self.roles[0], model.tokenizer, model.config)
        chosen = [list(range(start, len(texts), len(self.roles))) for start in range(len(self.roles))]
        parts = [
            (rows, process_texts([texts[row] for row in rows], role, model.tokenizer, model.config))
            for role, rows in zip(self.roles, chosen, strict=True)
            if rows
        ]
        longest = max(part["input_ids"].shape[1] for _, part in parts)
        fill = {"input_ids": model.tokenizer.pad_token_id, "attention_mask": 0, "scoring_mask": False}
        order = torch.tensor([row for rows, _ in parts for row in rows]).argsort()
        return {
            name: torch.cat([pad(part[name], (0, longest - part[name].shape[1]), value=value) for _, part in parts])[
                order
            ]
            for name, value in fill.items()
        }
