"""What each way of making an index smaller costs in nDCG@10.

    python examples/benchmark_compression.py --index_dir measured/index --qrels qrels.yo.tsv \
        --topics topics.yo.tsv topics.yo.english.tsv

Reads an index of `optical-hf index` or `optical-hf evaluate` (float16, without `--dim` and `--pool_factor`),
compresses its vectors in memory as `build_index` would, and searches. Passages are not encoded again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from optical_hf import PassageIndex, search
from optical_hf.arguments import ArgumentReader
from optical_hf.commands.encoders import EncoderArguments
from optical_hf.data.trec_files import read_qrels, read_topics
from optical_hf.launching import run
from optical_hf.metrics.miracl_ndcg.miracl_ndcg import score_run
from optical_hf.retrieval.index.build import ROTATION_PASSAGES
from optical_hf.retrieval.index.compression import fit_rotation, pool_tokens, quantize

# `--dim`, `--pool_factor` and `--dtype`
SETTINGS = [
    (None, 1, "float16"),
    (None, 1, "int8"),
    (192, 1, "float16"),
    (96, 1, "float16"),
    (None, 2, "float16"),
    (None, 4, "float16"),
    (96, 2, "int8"),
]


@dataclass
class CollectionArguments:
    """What is searched in the index."""

    index_dir: str = field(metadata={"help": "Folder of the index."})
    topics: list[str] = field(metadata={"help": "Files of queries, each measured by itself."})
    qrels: str = field(metadata={"help": "TREC judgements of all of them."})


def compressed(
    vectors: Sequence[Tensor], rotation: Tensor | None, pool_factor: int, dtype: str
) -> Iterator[tuple[Tensor, int]]:
    """Yield each passage's token vectors as an index would give them back, and the bytes that it would store."""
    for one in vectors:
        one = one.float()
        if rotation is not None:
            one = F.normalize(one @ rotation, dim=1)
        one = pool_tokens(one, pool_factor)
        if dtype == "int8":
            numbers, scales = quantize(one)
            yield (numbers.float() * scales.float()[:, None]).half(), numbers.numel() + 2 * len(scales)
        else:
            yield one.half(), 2 * one.numel()


@torch.no_grad()
def main(arguments: Sequence[str]) -> None:
    models, collection = ArgumentReader(EncoderArguments, CollectionArguments, prog=__file__).read(arguments)
    index = PassageIndex.load(collection.index_dir)
    options = index.manifest["options"]
    if (options["dim"], options["pool_factor"], options["dtype"], options["single"]) != (None, 1, "float16", False):
        raise ValueError(f"{index.folder} is compressed already: give an index made without --dim and the like.")
    docids = [docid for shard in index.shards for docid in shard.docids()]
    vectors = [one for shard in index.shards for one in shard.token_vectors(shard.offsets())]
    sample = vectors[:: -(-len(vectors) // ROTATION_PASSAGES)]
    query_model, _ = models.load()
    topics = {Path(path).name: read_topics(path) for path in collection.topics}
    queries = {name: query_model.encode_tokens(list(texts.values()), "query") for name, texts in topics.items()}
    qrels = read_qrels(collection.qrels)

    print("dim  pool_factor  dtype    KB a passage  " + "  ".join(topics))
    for dim, pool_factor, dtype in SETTINGS:
        if dim is not None and dim > vectors[0].shape[1]:
            continue  # a model of fewer dimensions
        rotation = None if dim is None else fit_rotation(map(Tensor.float, sample), dim)
        passages, sizes = zip(*compressed(vectors, rotation, pool_factor, dtype), strict=True)
        found = []
        for name, texts in topics.items():
            own = queries[name]
            if rotation is not None:
                own = [F.normalize(one @ rotation, dim=1) for one in own]
            found.append(score_run(search(own, passages, docids, list(texts)), qrels)["ndcg@10"])
        figures = "  ".join(f"{one:.4f}".rjust(len(name)) for one, name in zip(found, topics, strict=True))
        print(
            f"{dim or '-':>3}  {pool_factor:11}  {dtype:7}  {sum(sizes) / len(sizes) / 1e3:12.1f}  {figures}",
            flush=True,
        )


if __name__ == "__main__":
    run(main, sys.argv[1:])
