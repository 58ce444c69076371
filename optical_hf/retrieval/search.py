"""Exact search over token or single vectors that are in memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..bounds import check_count
from .maxsim import maxsim

Run = dict[str, dict[str, float]]

QUERIES_AT_ONCE = 64  # bounds the score matrix: 64 queries by a million passages are 256 MB


@torch.no_grad()
def search(
    query_vectors: Sequence[Tensor] | Tensor,
    document_vectors: Sequence[Tensor] | Tensor,
    doc_ids: Sequence[str],
    query_ids: Sequence[str],
    k: int = 100,
) -> Run:
    """Find every query's best `k` documents, exactly: MaxSim over token vectors, dot product over single vectors.

    Args:
        query_vectors (`list[Tensor]` or `Tensor`):
            Token vectors, one tensor `(query_tokens, dim)` a query; or one tensor `(queries, dim)` of single vectors.
        document_vectors (`list[Tensor]` or `Tensor`):
            Likewise, `(document_tokens, dim)` each or `(documents, dim)`.
        doc_ids (`Sequence[str]`):
            The documents' ids, in the order of `document_vectors`.
        query_ids (`Sequence[str]`):
            The queries' ids, in the order of `query_vectors`.
        k (`int`, *optional*, defaults to 100):
            Results a query. Among equal scores, those that trec_eval would rank first are kept.

    Returns:
        `dict[str, dict[str, float]]`: the run, scores by query id and document id, best first.

    Raises:
        ValueError: if vectors and ids do not match, an id is repeated, or vectors are missing, of different sizes, NaN
            or infinite.

    Example:
        >>> search(torch.eye(2), torch.eye(2), doc_ids=["d1", "d2"], query_ids=["q1", "q2"], k=1)
        {'q1': {'d1': 1.0}, 'q2': {'d2': 1.0}}
    """
    single = isinstance(document_vectors, Tensor)
    if single != isinstance(query_vectors, Tensor):
        raise ValueError("Give queries and documents both as lists of token vectors, or both as one 2-D tensor.")
    check_count("k", k)
    check_ids("document", document_vectors, doc_ids)
    check_ids("query", query_vectors, query_ids)
    dim = document_vectors[0].shape[-1] if document_vectors[0].ndim else 0
    check_vectors("document", document_vectors, doc_ids, dim)
    check_vectors("query", query_vectors, query_ids, dim)
    run: Run = {}
    starts = range(0, len(query_ids), QUERIES_AT_ONCE)
    quiet = len(starts) == 1 or int(os.environ.get("RANK", 0)) > 0
    for start in tqdm(starts, desc="Searching", unit_scale=QUERIES_AT_ONCE, unit="query", delay=2, disable=quiet):
        chunk = query_vectors[start : start + QUERIES_AT_ONCE]
        if isinstance(chunk, Tensor) and isinstance(document_vectors, Tensor):
            scores = chunk.float() @ document_vectors.float().T
        else:
            scores = maxsim(list(chunk), list(document_vectors)).float()
        run |= best_passages(scores.cpu(), doc_ids, query_ids[start : start + QUERIES_AT_ONCE], k)
    return run


def check_ids(kind: str, vectors: Sequence[Tensor] | Tensor, ids: Sequence[str]) -> None:
    """Refuse vectors that have not one id each, and ids that are there twice.

    Args:
        kind (`str`): `"query"` or `"document"`, for the message.
        vectors (`list[Tensor]` or `Tensor`): one entry a query or document; at least one.
        ids (`Sequence[str]`): their ids.
    """
    if not len(vectors) or len(vectors) != len(ids):
        raise ValueError(f"{len(vectors)} {kind} vectors but {len(ids)} {kind} ids: give one id each.")
    if len(set(ids)) != len(ids):
        [(twice, _)] = Counter(ids).most_common(1)
        raise ValueError(f"{kind} id {twice!r} is there twice.")


def check_vectors(kind: str, vectors: Sequence[Tensor] | Tensor, ids: Sequence[str], dim: int) -> None:
    """Refuse vectors that cannot be scored: of a wrong shape or size, none at all, NaN or infinite.

    Args:
        kind (`str`): `"query"` or `"document"`, for the message.
        vectors (`list[Tensor]` or `Tensor`): one entry a query or document, `(tokens, dim)` each or `(entries, dim)`.
        ids (`Sequence[str]`): their ids.
        dim (`int`): size that the vectors have to have.
    """
    if isinstance(vectors, Tensor) and vectors.dim() != 2:
        raise ValueError(f"{kind} vectors: a tensor must be 2-D, got the shape {tuple(vectors.shape)}.")
    if isinstance(vectors, Tensor):  # all at once, for there may be millions
        finite, sizes = vectors.isfinite().all(dim=1).tolist(), [vectors.shape[1]] * len(vectors)
    else:
        for name, entry in zip(ids, vectors, strict=True):
            if entry.ndim != 2 or not len(entry):
                what = "no tokens" if entry.ndim == 2 else f"the shape {tuple(entry.shape)} in place of (tokens, dim)"
                raise ValueError(f"{kind.capitalize()} {name!r} has {what}: nothing of it can be scored.")
        finite, sizes = [bool(entry.isfinite().all()) for entry in vectors], [entry.shape[1] for entry in vectors]
    for name, size, whole in zip(ids, sizes, finite, strict=True):
        if size != dim:
            raise ValueError(f"{kind.capitalize()} {name!r} has vectors of size {size}, not of size {dim}.")
        if not whole:
            raise ValueError(f"{kind.capitalize()} {name!r} has NaN or infinity in its vectors.")


def best_passages(scores: Tensor, doc_ids: Sequence[str], query_ids: Sequence[str], k: int) -> Run:
    """Keep every query's best `k` passages; among equal scores, those that trec_eval would rank first.

    Args:
        scores (`torch.Tensor` of shape `(queries, documents)`): on the CPU.
        doc_ids, query_ids (`Sequence[str]`): the ids of its columns and rows.
        k (`int`): results a query.

    Raises:
        ValueError: naming the query, if a score is NaN or infinite.
    """
    bad = (~scores.isfinite()).any(dim=1).nonzero()
    if len(bad):
        raise ValueError(f"Query {query_ids[int(bad[0])]!r} has NaN or infinite scores: its vectors are too large.")
    # topk breaks ties at random. So take all that reach the k-th score, and cut only after sorting by id as well.
    least = scores.topk(min(k, len(doc_ids)), dim=1).values[:, -1:]
    best: Run = {}
    for qid, row, reaches in zip(query_ids, scores, scores >= least, strict=True):
        found = reaches.nonzero().squeeze(1)
        pairs = zip(row[found].tolist(), (doc_ids[i] for i in found.tolist()), strict=True)
        best[qid] = {docid: score for score, docid in sorted(pairs, reverse=True)[:k]}
    return best
