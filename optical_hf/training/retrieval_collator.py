"""From training rows to one batch of queries and one of their passages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from ..models.modeling_optical import OpticalModel
from ..models.processing_optical import process_texts

_NONE = -1  # of ids that pad a row; a hash is never below 0


@dataclass
class RetrievalCollator:
    """Tokenise the queries of rows for one model, and their passages for the same or another.

    Args:
        query_model, document_model ([`OpticalTeacher`] or [`OpticalStudent`]):
            Give tokenizers, prefixes and lengths.
        languages (`list[str]`):
            Every language of a query that may occur; a row's `language_ids` entry is its place in this list.
        negatives (`int`, *optional*, defaults to 7):
            The first so many negatives of a row take part.

    Raises:
        ValueError: if a row is of a language that is not in `languages`.
    """

    query_model: OpticalModel
    document_model: OpticalModel
    languages: list[str]
    negatives: int = 7

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return a batch of `rows` queries and their passages, one after the other, the positive of each row first.

        `{query,document}_{input_ids,attention_mask,scoring_mask}` are `(rows or passages, tokens)`. `own` is `(rows,
        own_passages)`, the place of a row's passages, -1 behind the last; `scores` those of a teacher, NaN where there
        are none. `document_ids` is `(passages,)`, and `positive_ids` `(rows, positives)`: hashes by which a passage
        that answers a row's query too is known, whichever row it came with. `english` tells rows of English alone.
        """
        if unknown := sorted({row["query_language"] for row in rows} - set(self.languages)):
            raise ValueError(f"A row has the language {unknown[0]!r}, not one of {self.languages}.")
        kept = 1 + self.negatives
        passages = [text for row in rows for text in row["passages"][:kept]]
        counts = torch.tensor([len(row["passages"][:kept]) for row in rows])
        ends = counts.cumsum(0).tolist()
        places = [torch.arange(end - count, end) for end, count in zip(ends, counts.tolist(), strict=True)]
        nan = float("nan")
        scores = [torch.tensor((row.get("scores") or [nan] * len(row["passages"]))[:kept]) for row in rows]
        batch = {
            "language_ids": torch.tensor([self.languages.index(row["query_language"]) for row in rows]),
            "english": torch.tensor([row["query_language"] == row["document_language"] == "en" for row in rows]),
            "own": pad_sequence(places, batch_first=True, padding_value=-1),
            "scores": pad_sequence(scores, batch_first=True, padding_value=nan),
            "document_ids": torch.tensor([_hash(docid) for row in rows for docid in row["docids"][:kept]]),
            "positive_ids": pad_sequence(
                [torch.tensor([_hash(docid) for docid in row["positives"]]) for row in rows],
                batch_first=True,
                padding_value=_NONE,
            ),
        }
        sides = (
            ("query", self.query_model, [row["query"] for row in rows]),
            ("document", self.document_model, passages),
        )
        for role, model, texts in sides:
            tensors = process_texts(texts, role, model.tokenizer, model.config)
            batch |= {f"{role}_{name}": tensor for name, tensor in tensors.items()}
        return batch


def _hash(docid: str) -> int:
    # In 63 bits, since torch has no unsigned integers to compare by; the built-in hash differs between processes.
    return int.from_bytes(blake2b(docid.encode(), digest_size=8).digest()) >> 1
