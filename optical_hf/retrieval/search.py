"""A retrieval task read from plain files, exact search over token or single vectors, and the official scores."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data.languages import language_code
from ..data.trec_files import read_passages, read_qrels, read_topics
from ..metrics.miracl_ndcg.miracl_ndcg import score_run
from .maxsim import maxsim

__all__ = ["RetrievalSet", "score_run", "search"]

logger = logging.getLogger(__name__)

QUERIES_AT_ONCE = 64  # bounds the score matrix: 64 queries by a million passages are 256 MB


@dataclass
class RetrievalSet:
    """Queries, passages and judgements of one language pair.

    Args:
        name (`str`):
            What reports call it.
        topics (`dict[str, str]`):
            Queries by id.
        passages (`dict[str, str]`):
            Passages by document id.
        qrels (`dict[str, dict[str, int]]`):
            Relevances by query id and document id. A judged query that is not in `topics` still counts in the mean,
            as with `trec_eval -c`, and is warned of.
        query_language (`str`):
            Language of the queries, as [`languages.language_code`] reads it; kept as its code.
        document_language (`str`):
            Language of the passages, likewise.

    Raises:
        ValueError: if topics, passages or qrels are empty, or a language has no code.
    """

    name: str
    topics: dict[str, str]
    passages: dict[str, str]
    qrels: dict[str, dict[str, int]]
    query_language: str
    document_language: str

    def __post_init__(self) -> None:
        for part in ("topics", "passages", "qrels"):
            if not getattr(self, part):
                raise ValueError(f"Retrieval set {self.name!r}: its {part} are empty.")
        self.query_language = language_code(self.query_language)
        self.document_language = language_code(self.document_language)
        unknown = [qid for qid in self.qrels if qid not in self.topics]
        if unknown:
            logger.warning(
                "Retrieval set %r: %d of the %d judged queries are not among the topics (such as %r); each scores 0.",
                self.name,
                len(unknown),
                len(self.qrels),
                unknown[0],
            )
        relevant = [docid for judged in self.qrels.values() for docid, relevance in judged.items() if relevance > 0]
        lost = [docid for docid in relevant if docid not in self.passages]
        if lost:
            logger.warning(
                "Retrieval set %r: %d of the %d relevant judgements name a passage that is not there (such as %r).",
                self.name,
                len(lost),
                len(relevant),
                lost[0],
            )

    @classmethod
    def from_files(
        cls,
        topics: str | os.PathLike[str],
        passages: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        qrels: str | os.PathLike[str],
        *,
        query_language: str,
        document_language: str,
        name: str | None = None,
    ) -> RetrievalSet:
        """Read a retrieval set, such as MIRACL's files as they are.

        Args:
            topics (`str` or `Path`):
                `qid<TAB>text` lines.
            passages (`str`, `Path`, or a sequence of them):
                JSON lines, plain or `.gz`; see [`trec.iter_passages`].
            qrels (`str` or `Path`):
                TREC qrels.
            query_language (`str`):
                Language of the queries.
            document_language (`str`):
                Language of the passages.
            name (`str`, *optional*):
                Defaults to the topics file's name without its ending.

        Raises:
            ValueError: naming file and line, if one of them is malformed or empty.
        """
        return cls(
            name=name or Path(topics).stem,
            topics=read_topics(topics),
            passages=read_passages(passages),
            qrels=read_qrels(qrels),
            query_language=query_language,
            document_language=document_language,
        )


@torch.no_grad()
def search(
    query_vectors: Sequence[Tensor] | Tensor,
    document_vectors: Sequence[Tensor] | Tensor,
    doc_ids: Sequence[str],
    query_ids: Sequence[str],
    k: int = 100,
) -> dict[str, dict[str, float]]:
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
        ValueError: if vectors and ids do not match, an id is repeated, or a score is NaN.

    Example:
        >>> search(torch.eye(2), torch.eye(2), doc_ids=["d1", "d2"], query_ids=["q1", "q2"], k=1)
        {'q1': {'d1': 1.0}, 'q2': {'d2': 1.0}}
    """
    single = isinstance(document_vectors, Tensor)
    if single != isinstance(query_vectors, Tensor):
        raise ValueError("Give queries and documents both as lists of token vectors, or both as one 2-D tensor.")
    for name, vectors, ids in (("query", query_vectors, query_ids), ("document", document_vectors, doc_ids)):
        if isinstance(vectors, Tensor) and vectors.dim() != 2:
            raise ValueError(f"{name} vectors: a tensor must be 2-D, got the shape {tuple(vectors.shape)}.")
        if not len(vectors) or len(vectors) != len(ids):
            raise ValueError(f"{len(vectors)} {name} vectors but {len(ids)} {name} ids: give one id each.")
        if len(set(ids)) != len(ids):
            [(twice, _)] = Counter(ids).most_common(1)
            raise ValueError(f"{name} id {twice!r} is there twice.")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
    run: dict[str, dict[str, float]] = {}
    starts = range(0, len(query_ids), QUERIES_AT_ONCE)
    quiet = len(starts) == 1 or int(os.environ.get("RANK", 0)) > 0
    for start in tqdm(starts, desc="Searching", unit_scale=QUERIES_AT_ONCE, unit="query", delay=2, disable=quiet):
        chunk = query_vectors[start : start + QUERIES_AT_ONCE]
        if isinstance(chunk, Tensor) and isinstance(document_vectors, Tensor):
            scores = chunk.float() @ document_vectors.float().T
        else:
            scores = maxsim(list(chunk), list(document_vectors)).float()
        run |= _best(scores.cpu(), doc_ids, query_ids[start : start + QUERIES_AT_ONCE], k)
    return run


def _best(scores: Tensor, doc_ids: Sequence[str], query_ids: Sequence[str], k: int) -> dict[str, dict[str, float]]:
    bad = scores.isnan().any(dim=1).nonzero()
    if len(bad):
        raise ValueError(f"Query {query_ids[int(bad[0])]!r} has NaN scores: look for NaN in the vectors.")
    # topk breaks ties at random. So take all that reach the k-th score, and cut only after sorting by id as well.
    least = scores.topk(min(k, len(doc_ids)), dim=1).values[:, -1:]
    best: dict[str, dict[str, float]] = {}
    for qid, row, reaches in zip(query_ids, scores, scores >= least, strict=True):
        found = reaches.nonzero().squeeze(1)
        pairs = zip(row[found].tolist(), (doc_ids[i] for i in found.tolist()), strict=True)
        best[qid] = {docid: score for score, docid in sorted(pairs, reverse=True)[:k]}
    return best
