"""MaxSim scores in memory and from the shards of an index, beside an einsum, maxsim-cpu and Qdrant Edge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..files import write_json
from ..retrieval.index.build import PassageIndex
from ..retrieval.index.shards import MANIFEST, fingerprint, shard_path, write_shard
from ..retrieval.maxsim import maxsim
from .comparison import Comparison, check_equal, compare
from .setup import Setup, skewed_lengths, unit_vectors

TOLERANCE = 1e-3  # of a sum over a query's tokens
K = 10


def measure(setup: Setup) -> Iterator[Comparison]:
    """Measure random vectors: passages of one length, passages as long as texts are, and these in an index."""
    # Of ColBERT's size: maxsim-cpu 0.1.0 gives wrong scores for vectors of 384 dimensions.
    dim, count, longest = setup.size((128, 1000, 512), (16, 20, 24), (128, 20_000, 512))
    queries = unit_vectors(setup.size([16] * 32, [4] * 3), dim, seed=0)
    skewed = skewed_lengths(count, longest, seed=1)
    for name, lengths in {"equal": [sum(skewed) // count] * count, "skewed": skewed}.items():
        documents = unit_vectors(lengths, dim, seed=2)
        there, placed = ([each.to(setup.device) for each in vectors] for vectors in (queries, documents))
        peers: dict[str, Callable[[], Callable[[], Any]]] = {
            "torch einsum, padded": partial(partial, padded_scores, torch.stack(there), *pad(placed)),
            "maxsim-cpu": partial(_maxsim_cpu, queries, documents),
        }
        ours = partial(maxsim, there, placed)
        yield from _compare_all(setup, "MaxSim", name, queries, documents, ours, peers)

    index = write_index(setup.folder / "index", documents, setup.size(250, 8, 5000))
    names = [str(number) for number in range(len(queries))]

    def from_index() -> list[list[float]]:
        return [list(found.values()) for found in index.search(there, names, k=K).values()]

    def read_and_multiply() -> list[list[float]]:
        parts = []
        for number in range(len(index.shards)):
            tensors = load_file(shard_path(index.folder, number), device=setup.device)
            vectors = tensors["tokens"].float().split(tensors["offsets"].diff().tolist())
            parts.append(padded_scores(torch.stack(there), *pad(list(vectors))))
        return torch.cat(parts, dim=1).topk(K).values.tolist()

    peers = {
        "torch einsum, padded, shards read": lambda: read_and_multiply,
        "Qdrant Edge, exact": partial(_qdrant, setup, queries, documents),
    }
    yield from _compare_all(setup, f"best {K} of an index", "skewed", queries, documents, from_index, peers)


def _compare_all(
    setup: Setup,
    what: str,
    lengths: str,
    queries: list[Tensor],
    documents: list[Tensor],
    ours: Callable[[], Any],
    peers: dict[str, Callable[[], Callable[[], Any]]],
) -> Iterator[Comparison]:
    def same_scores(ours: Any, theirs: Any) -> list[str]:
        check_equal("MaxSim scores", ours, theirs, TOLERANCE)
        return []

    for peer, make_peer in peers.items():
        if setup.device == "cpu" or peer.startswith("torch"):  # the others have no card
            yield compare(
                f"{what}, {len(queries)} queries, {len(documents)} passages of {lengths} lengths",
                ours,
                peer,
                make_peer,
                rounds=setup.rounds,
                now=setup.now,
                notes=same_scores,
                flops=2 * sum(map(len, documents)) * sum(map(len, queries)) * queries[0].shape[1],
            )


def _maxsim_cpu(queries: list[Tensor], documents: list[Tensor]) -> Callable[[], Any]:
    import maxsim_cpu

    asked, texts = ([each.numpy() for each in vectors] for vectors in (queries, documents))
    if len({len(text) for text in texts}) == 1:
        stacked = np.stack(texts)
        return lambda: np.stack([maxsim_cpu.maxsim_scores(query, stacked) for query in asked])
    return lambda: np.stack([maxsim_cpu.maxsim_scores_variable(query, texts) for query in asked])


def _qdrant(setup: Setup, queries: list[Tensor], documents: list[Tensor]) -> Callable[[], list[list[float]]]:
    import qdrant_edge as edge

    several = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
    vectors = edge.EdgeVectorParams(queries[0].shape[1], edge.Distance.Dot, multivector_config=several)
    (setup.folder / "qdrant").mkdir()
    config = edge.EdgeConfig(vectors=vectors, max_search_threads=setup.threads)
    shard = edge.EdgeShard.create(str(setup.folder / "qdrant"), config)
    for start in range(0, len(documents), 50):  # as lists of numbers, which take much memory
        chosen = enumerate(documents[start : start + 50], start)
        points = [edge.Point(number, text.half().tolist()) for number, text in chosen]
        shard.update(edge.UpdateOperation.upsert_points(points))
    exact = edge.SearchParams(exact=True)
    nearest = [edge.Query.Nearest(query.tolist()) for query in queries]
    batch = edge.QueryBatchRequest([edge.QueryRequest(K, query=query, params=exact) for query in nearest])
    return lambda: [[point.score for point in found] for found in shard.query_batch(batch)]


def pad(documents: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad token vectors to one tensor `(documents, tokens, dim)`, with a mask of what is there."""
    lengths = torch.tensor([len(each) for each in documents], device=documents[0].device)
    padded = pad_sequence(documents, batch_first=True)
    return padded, torch.arange(padded.shape[1], device=padded.device)[None] < lengths[:, None]


def padded_scores(queries: Tensor, documents: Tensor, mask: Tensor) -> Tensor:
    """MaxSim as it is usually written, 64 documents at a time.

    Args:
        queries, documents (`torch.Tensor` of shapes `(queries, tokens, dim)` and `(documents, tokens, dim)`):
            Token vectors.
        mask (`torch.BoolTensor` of shape `(documents, tokens)`): false on padding.

    Returns:
        `torch.Tensor` of shape `(queries, documents)`.
    """
    scores = []
    for part, there in zip(documents.split(64), mask.split(64), strict=True):
        similarities = torch.einsum("qsh,dth->qdst", queries, part)
        scores.append(similarities.masked_fill(~there[None, :, None], -torch.inf).amax(3).sum(2))
    return torch.cat(scores, dim=1)


def write_index(folder: Path, documents: list[Tensor], shard_size: int) -> PassageIndex:
    """Write token vectors as an index, without a model that has made them."""
    folder.mkdir()
    options = {"shard_size": shard_size, "pool_factor": 1, "dim": None, "dtype": "float16", "single": False}
    settings = {"model": {"weights": "random"}, "role": "document", "options": options}
    entries = []
    for number, start in enumerate(range(0, len(documents), shard_size)):
        chosen = documents[start : start + shard_size]
        docids = [f"d{place}" for place in range(start, start + len(chosen))]
        tensors = {
            "tokens": torch.cat(chosen).half(),
            "offsets": torch.tensor([0, *map(len, chosen)]).cumsum(0),
            "pooled": torch.stack([each.mean(0) for each in chosen]).half(),
        }
        entries.append({"passages": len(docids), "fingerprint": fingerprint(docids)})
        path = shard_path(folder, number)
        write_shard(path, docids, tensors, fingerprint(settings), fingerprint(docids), None)
    write_json(folder / MANIFEST, {**settings, "shards": entries})
    return PassageIndex.load(folder)
