"""Late-interaction scores (MaxSim) of queries and documents that are lists of token vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from ..bounds import check_count


def maxsim(
    queries: Sequence[torch.Tensor], documents: Sequence[torch.Tensor], *, chunk_size: int = 1 << 24
) -> torch.Tensor:
    r"""Score every query against every document by MaxSim (ColBERT, arXiv 2004.12832, eq. 3).

    \\(S_{q,d} = \sum_{i \in q} \max_{j \in d} q_i \cdot d_j\\), exactly, in float32. Similarities are computed by one
    matrix product a chunk of queries and documents, so memory does not grow with their number.

    Args:
        queries (sequence of `torch.Tensor`):
            One `(query_tokens, dim)` tensor a query, any floating type; the numbers of tokens may differ.
        documents (sequence of `torch.Tensor`):
            One `(document_tokens, dim)` tensor a document; half precision is cast to float32 chunk by chunk.
        chunk_size (`int`, *optional*, defaults to 16,777,216):
            Most similarities held at once, in numbers (4 bytes each); one query against one document always fits.

    Returns:
        `torch.Tensor`: `(n_queries, n_documents)`, float32, on the device of the queries.

    Raises:
        ValueError: if a query or document is not `(tokens, dim)`, is empty, or has another `dim` than the rest.

    Example:

    ```python
    >>> import torch
    >>> from optical_hf import maxsim
    >>> query = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> document = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    >>> maxsim([query], [document])  # max(1, 0.6, -1) + max(0, 0.8, 0)
    tensor([[1.8000]])
    ```
    """
    check_count("chunk_size", chunk_size)
    dim = queries[0].shape[-1] if len(queries) and queries[0].ndim else None
    for name, vectors in (("queries", queries), ("documents", documents)):
        for index, one in enumerate(vectors):
            if one.ndim != 2 or one.shape[0] == 0:
                what = "has no tokens" if one.ndim == 2 else "is not (tokens, dim)"
                raise ValueError(f"{name}[{index}] of shape {tuple(one.shape)} {what}.")
            dim = one.shape[1] if dim is None else dim
            if one.shape[1] != dim:
                raise ValueError(f"{name}[{index}] has vectors of size {one.shape[1]}, those before it of size {dim}.")
    if not len(queries) or not len(documents):
        return torch.zeros(len(queries), len(documents))

    device = queries[0].device
    # Square chunks: as many query tokens as document tokens.
    side = max(1, int(chunk_size**0.5))
    rows = []
    for chunk in _chunks(queries, side):
        lengths = [len(query) for query in chunk]
        query_tokens = torch.cat(list(chunk)).float().T
        budget = chunk_size // max(sum(lengths), query_tokens.shape[0])  # the float32 copy of the documents counts too
        columns = []
        for part in _chunks(documents, budget):
            similarities = torch.cat([document.to(device, torch.float32) for document in part]) @ query_tokens
            pieces = similarities.split([len(document) for document in part])
            best = torch.stack([piece.amax(dim=0) for piece in pieces], dim=1)  # (query tokens, documents)
            # Not by index_add, which adds one by one, and rounds a sum of sixty cosines twice as far off.
            columns.append(torch.stack([piece.sum(dim=0) for piece in best.split(lengths)]))
        rows.append(torch.cat(columns, dim=1))
    return torch.cat(rows)


def top_k(
    queries: Sequence[torch.Tensor], documents: Sequence[torch.Tensor], k: int, *, chunk_size: int = 1 << 24
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `k` best documents of every query by [`maxsim`], best first; equal scores keep the documents' order.

    Args:
        queries (sequence of `torch.Tensor`): one `(query_tokens, dim)` tensor a query.
        documents (sequence of `torch.Tensor`): one `(document_tokens, dim)` tensor a document.
        k (`int`): how many; all documents if there are fewer.
        chunk_size (`int`, *optional*, defaults to 16,777,216): see [`maxsim`].

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: scores (float32) and document indices (int64), each `(n_queries, k)`.

    Raises:
        ValueError: if `k` is not positive, and as [`maxsim`].
    """
    check_count("k", k)
    scores, indices = maxsim(queries, documents, chunk_size=chunk_size).sort(dim=1, descending=True, stable=True)
    return scores[:, :k], indices[:, :k]


def _chunks(vectors: Sequence[torch.Tensor], tokens: int) -> Iterator[list[torch.Tensor]]:
    # Consecutive runs of at most `tokens` vectors, never fewer than one text each.
    chunk: list[torch.Tensor] = []
    count = 0
    for one in vectors:
        if chunk and count + len(one) > tokens:
            yield chunk
            chunk, count = [], 0
        chunk.append(one)
        count += len(one)
    if chunk:
        yield chunk
