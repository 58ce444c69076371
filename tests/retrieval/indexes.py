"""Passages, queries and models of the tests of indexes, and what these tests do to files."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file
from transformers import ByT5Tokenizer

from optical_hf.models.modeling_optical import OpticalModel
from optical_hf.retrieval.index.exact import PassageIndex

WORDS = "the a who wrote it rains today nani aliandika hicho kitabu leo mvua inanyesha book this she habari".split()
COMPRESSED = {"dim": 16, "pool_factor": 2, "dtype": "int8"}


def make_passages(count: int) -> list[tuple[str, str]]:
    chance = random.Random(0)
    return [(f"d{number}", " ".join(chance.choices(WORDS, k=chance.randint(1, 20)))) for number in range(count)]


PASSAGES = make_passages(23)
QUERIES = {"q1": "nani aliandika kitabu", "q2": "who wrote the book ?", "q3": "mvua inanyesha leo"}


def read_back(index: PassageIndex) -> tuple[list[str], list[torch.Tensor], torch.Tensor]:
    docids = [docid for shard in index.shards for docid in shard.docids()]
    tokens = [one for shard in index.shards for one in shard.token_vectors(shard.offsets())]
    return docids, tokens, torch.cat([shard.read("pooled", 0, len(shard)) for shard in index.shards])


def encode_queries(model: OpticalModel) -> tuple[list[torch.Tensor], torch.Tensor]:
    return model.encode_both(list(QUERIES.values()), "query")


def exact_model(dim: int = 256) -> SimpleNamespace:
    """A stand-in whose vectors are such that float32 sums them without rounding, in whatever order."""

    def encode_both(texts, role, **options):
        vectors = [
            torch.randint(-2, 3, (1 + len(text) % 7, dim), generator=torch.Generator().manual_seed(len(text))) / 8
            for text in texts
        ]
        return vectors, torch.stack([one.sum(0) for one in vectors])

    return SimpleNamespace(
        config=SimpleNamespace(output_dim=dim, to_dict=dict),
        tokenizer=ByT5Tokenizer(),
        state_dict=dict,
        encode_both=encode_both,
    )


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def spoil(path: Path, how: str) -> None:
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    elif how == "cut in the header":
        path.write_bytes(path.read_bytes()[:50])
    elif how == "garbage":
        path.write_bytes(b"\xff" * 5000)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "gone":
        path.unlink()
    elif how == "other file":
        save_file({"weight": torch.ones(3)}, path)
