"""Encoding passages, beside sentence-transformers with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from .comparison import Comparison, compare
from .machine import flop_counter
from .setup import Setup, sample_passages


def measure(setup: Setup) -> Iterator[Comparison]:
    """Measure token vectors of the sample's passages, on the CPU at the end whatever the device is."""
    teacher = setup.teacher
    passages = sample_passages()[: setup.size(72, 8)] * setup.size(1, 1, 20)

    def ours() -> list[torch.Tensor]:
        return teacher.encode_tokens(passages, "document", show_progress=False)

    def make_peer() -> Callable[[], Any]:
        from sentence_transformers import MultiVectorEncoder

        folder = setup.folder / "encoder"
        teacher.save_pretrained(folder)
        model = MultiVectorEncoder(str(folder), trust_remote_code=True, device=setup.device)
        return lambda: model.encode_document(passages, show_progress_bar=False, convert_to_numpy=True)

    def notes(vectors: list[torch.Tensor], theirs: Any) -> list[str]:
        if theirs is None:
            return []
        pairs = zip(vectors, theirs, strict=True)
        return [f"largest difference {max(float((one - torch.as_tensor(two)).abs().max()) for one, two in pairs):.0e}"]

    with flop_counter() as counter:
        tokens = sum(len(vectors) for vectors in ours())
    yield compare(
        f"encoding, {len(passages)} passages",
        ours,
        "sentence-transformers MultiVectorEncoder",
        make_peer,
        rounds=setup.rounds,
        now=setup.now,
        notes=notes,
        flops=counter.get_total_flops(),
        amount=tokens,
        unit="token vectors",
    )
