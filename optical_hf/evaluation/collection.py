"""A retriever measured on a collection: its index on disk, its runs, and the official scores."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bounds import check_count, check_memory
from ..data.retrieval_set import check_judgements, check_passages, check_queries, relevant_docids
from ..metrics.miracl_ndcg.miracl_ndcg import score_run
from ..models.modeling_optical import OpticalModel
from ..retrieval.index.build import build_index
from ..retrieval.index.exact import check_budget
from ..retrieval.reranking import score_pairs
from ..retrieval.search import Run, check_vectors

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

SCORINGS = ("maxsim", "pooled")
Qrels = Mapping[str, Mapping[str, int]]
Candidates = Mapping[str, Collection[str]]


@dataclass(frozen=True)
class Measured:
    """What one way of scoring reached.

    Args:
        run (`dict[str, dict[str, float]]`): the passages found, by query id.
        scores (`dict[str, float]`): means over the judged queries, such as `ndcg@10`.
        per_query (`dict[str, dict[str, float]]`): the same of every judged query.
        missing (`dict[str, int]`): what lowers the scores unseen: see [`check_collection`].
    """

    run: Run
    scores: dict[str, float]
    per_query: dict[str, dict[str, float]]
    missing: dict[str, int]


def check_collection(
    topics: Mapping[str, str],
    qrels: Qrels,
    passages: Iterable[tuple[str, str]],
    candidates: Candidates | None = None,
    *,
    strict: bool = False,
) -> dict[str, int]:
    """Read a collection before it is encoded, and count what judgements and candidates name that is not there.

    Also what is wrong with the passages themselves shows now, and not after hours of encoding.

    Args:
        topics, qrels, passages, candidates:
            As in [`evaluate_collection`].
        strict (`bool`, *optional*, defaults to `False`):
            Refuse what is not there, instead of warning.

    Returns:
        `dict[str, int]`: how many judged `queries` are no topics, how many `relevant_judgements` name passages that
        are not there, and how many `candidates` do.

    Raises:
        ValueError: if no judged query is a topic, nothing is relevant, the first stage found nothing, none of the
            judged passages or of the candidates is there, or any is not with `strict`; and as the passages' reader.
    """
    named = _Named(topics, qrels, candidates, strict=strict)
    for _ in named.among(passages):
        pass
    return named.missing


class _Named:
    """What topics, judgements and candidates name, and how much of it is not in a collection that is only streamed."""

    def __init__(
        self,
        topics: Mapping[str, str],
        qrels: Qrels,
        candidates: Candidates | None,
        strict: bool = False,
        missing: Mapping[str, int] | None = None,
    ) -> None:
        self.strict, self.counted, self.there = strict, missing is not None, set[str]()
        self.missing = dict(missing or {"queries": check_queries(qrels, topics, strict)})
        relevant_docids(qrels)  # there are some
        self.qrels, self.candidates = qrels, None
        if candidates is not None:
            self.candidates = [docid for qid in qrels if qid in topics for docid in candidates.get(qid, ())]
            if not self.candidates:
                raise ValueError("There is no candidate for any judged query: the first stage found nothing.")

    def among(self, passages: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Yield the passages to rank, and count what is missing when they end."""
        judged = {docid for documents in self.qrels.values() for docid in documents}
        ranked = None if self.candidates is None else set(self.candidates)
        for docid, text in passages:
            if docid in judged or (ranked is not None and docid in ranked):
                self.there.add(docid)
            if ranked is None or docid in ranked:
                yield docid, text
        if self.counted:
            return
        self.missing["relevant_judgements"] = check_judgements(self.qrels, self.there, self.strict)
        if self.candidates is not None:
            self.missing["candidates"] = check_passages("candidates", self.candidates, self.there, self.strict)


def evaluate_collection(
    query_model: OpticalModel,
    document_model: OpticalModel,
    topics: Mapping[str, str],
    qrels: Qrels,
    passages: Iterable[tuple[str, str]],
    index_folder: str | os.PathLike[str],
    *,
    candidates: Candidates | None = None,
    missing: Mapping[str, int] | None = None,
    batch_size: int = 32,
    memory_gb: float = 4.0,
    **index_options: Any,
) -> dict[str, Measured]:
    """Encode a collection (or what is missing of it), search it with all judged topics, and score the runs.

    Args:
        query_model, document_model ([`OpticalTeacher`] or [`OpticalStudent`]):
            May be one model, or two: in OPTICAL the student encodes queries, the teacher passages.
        topics, qrels, passages:
            Queries by id, relevances by query id and document id, and `(docid, text)` in the same order every time.
        index_folder (`str` or `Path`):
            Where the index is made, or found.
        candidates (`Mapping[str, Collection[str]]`, *optional*):
            The only document ids to rank, by query id: those of a first stage. Nothing else is encoded.
        missing (`Mapping[str, int]`, *optional*):
            What [`check_collection`] gave, if it was called before; else it is counted and warned of while the
            passages are read.
        batch_size (`int`, *optional*, defaults to 32):
            Texts a forward pass.
        memory_gb (`float`, *optional*, defaults to 4.0):
            Most that the search holds.
        index_options:
            Of [`build_index`]: `shard_size`, `pool_factor`, `dim`, `dtype`, `single`.

    Returns:
        `dict[str, Measured]`: by `"maxsim"` and `"pooled"`; the first is missing from an index with `single`.

    Raises:
        ValueError: if a number is out of bounds or the query model gives NaN, before any passage is encoded; and as
            [`check_collection`] and [`build_index`].
    """
    check_count("batch_size", batch_size)
    check_memory("memory_gb", memory_gb)
    if (size := query_model.config.output_dim) != document_model.config.output_dim:
        raise ValueError(
            f"The vectors of the queries' model have size {size}, those of the passages' model "
            f"{document_model.config.output_dim}: they cannot be compared."
        )
    named = _Named(topics, qrels, candidates, missing=missing)
    judged = {qid: text for qid, text in topics.items() if qid in qrels}
    tokens, pooled = query_model.encode_both(list(judged.values()), "query", batch_size=batch_size)
    for vectors in (tokens, pooled):
        check_vectors("query", vectors, list(judged), size)
    check_budget(memory_gb, len(judged), max(map(len, tokens)), index_options.get("dim") or size)
    index = build_index(
        document_model, named.among(passages), Path(index_folder), batch_size=batch_size, **index_options
    )
    if candidates is not None:  # without those that are not there, which are known by now
        candidates = {qid: named.there.intersection(candidates.get(qid, ())) for qid in judged}
    options: dict[str, Any] = {"candidates": candidates, "memory_gb": memory_gb}
    runs = {}
    if not index_options.get("single"):
        runs["maxsim"] = index.search(tokens, list(judged), **options)
    runs["pooled"] = index.search_pooled(pooled, list(judged), **options)
    return {scoring: _measured(run, qrels, named.missing) for scoring, run in runs.items()}


def evaluate_cross_encoder(
    model: CrossEncoder,
    topics: Mapping[str, str],
    qrels: Qrels,
    passages: Iterable[tuple[str, str]],
    candidates: Candidates,
    *,
    missing: Mapping[str, int] | None = None,
    batch_size: int = 32,
) -> dict[str, Measured]:
    """Rank the candidates of all judged topics by a cross-encoder, and score the run.

    Args:
        model (`CrossEncoder`):
            Of sentence-transformers; gives one score a pair.
        topics, qrels, passages, candidates, missing, batch_size:
            As in [`evaluate_collection`]. The texts of the candidates are held in memory.

    Returns:
        `dict[str, Measured]`: by `"cross_encoder"`.

    Raises:
        ValueError: as [`check_collection`] and [`score_pairs`].
    """
    check_count("batch_size", batch_size)
    named = _Named(topics, qrels, candidates, missing=missing)
    texts = dict(named.among(passages))
    there = {qid: [docid for docid in candidates.get(qid, ()) if docid in texts] for qid in topics if qid in qrels}
    run = score_pairs(model, topics, texts, there, batch_size)
    return {"cross_encoder": _measured(run, qrels, named.missing)}


def _measured(run: Run, qrels: Qrels, missing: dict[str, int]) -> Measured:
    scores = score_run(run, {qid: dict(documents) for qid, documents in qrels.items()}, per_query=True)
    per_query = scores.pop("per_query")
    return Measured(run, scores, per_query, missing)
