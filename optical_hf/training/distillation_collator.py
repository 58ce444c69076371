"""From pairs of sentences to one batch for the teacher and one for the student."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import pad
from tqdm.auto import tqdm

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

    def __call__(self, pairs: list[dict[str, str]]) -> dict[str, Any]:
        """Return `language_ids`, `{teacher,student}_{input_ids,attention_mask,scoring_mask}` and `teacher_keys`.

        The tensors are `(batch,)` and `(batch, tokens)`. The keys, strings, name the English sentences in their roles:
        what has one key has one output of the teacher.
        """
        try:
            ids = [self.languages.index(pair["language"]) for pair in pairs]
        except ValueError:
            unknown = sorted({pair["language"] for pair in pairs} - set(self.languages))
            raise ValueError(f"A pair has the language {unknown[0]!r}, not one of {self.languages}.") from None
        roles = [self.roles[row % len(self.roles)] for row in range(len(pairs))]
        batch: dict[str, Any] = {
            "language_ids": torch.tensor(ids),
            "teacher_keys": [f"{role}\t{pair['english']}" for role, pair in zip(roles, pairs, strict=True)],
        }
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


def padded_lengths(
    teacher: OpticalModel, student: OpticalModel, pairs: Dataset, roles: Sequence[str] = ("query",)
) -> list[int]:
    """Number pairs so that those of near numbers have near lengths: in the student's tokens, then in the teacher's.

    Texts of one length in a batch need no padding. The student's count first: it is trained, the teacher only runs.

    Args:
        teacher, student ([`OpticalTeacher`], [`OpticalStudent`]): give tokenizers and lengths.
        pairs (`Dataset`): with the columns `english` and `translation`.
        roles (`Sequence[str]`, *optional*, defaults to `("query",)`): in which they are encoded.
    """
    counts = []
    for model, column in ((student, "translation"), (teacher, "english")):
        most = max(model.config.query_length if role == "query" else model.config.document_length for role in roles)
        texts, lengths = pairs[column][:], []
        hidden = int(os.environ.get("RANK", 0)) > 0
        for start in tqdm(range(0, len(texts), 1000), f"Counting tokens ({column})", delay=2, disable=hidden):
            rows = model.tokenizer(texts[start : start + 1000], truncation=True, max_length=most)["input_ids"]
            lengths += [len(row) for row in rows]
        counts.append(lengths)
    return [own * 100_000 + other for own, other in zip(*counts, strict=True)]
