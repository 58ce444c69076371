"""A retriever measured on a collection: its index on disk, its runs, and the official scores."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..metrics.miracl_ndcg.miracl_ndcg import score_run
from ..models.modeling_optical import OpticalModel
from ..retrieval.index.build import build_index
from ..retrieval.search import Run

logger = logging.getLogger(__name__)

SCORINGS = ("maxsim", "pooled")


@dataclass(frozen=True)
class Measured:
    """What one way of scoring reached.

    Args:
        run (`dict[str, dict[str, float]]`): the passages found, by query id.
        scores (`dict[str, float]`): means over the judged queries, such as `ndcg@10`.
        per_query (`dict[str, dict[str, float]]`): the same of every judged query.
    """

    run: Run
    scores: dict[str, float]
    per_query: dict[str, dict[str, float]]


def evaluate_collection(
    query_model: OpticalModel,
    document_model: OpticalModel,
    topics: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    passages: Iterable[tuple[str, str]],
    index_folder: str | os.PathLike[str],
    *,
    candidates: Mapping[str, Collection[str]] | None = None,
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
        batch_size (`int`, *optional*, defaults to 32):
            Texts a forward pass.
        memory_gb (`float`, *optional*, defaults to 4.0):
            Most that the search holds.
        index_options:
            Of [`build_index`]: `shard_size`, `pool_factor`, `dim`, `dtype`, `single`.

    Returns:
        `dict[str, Measured]`: by `"maxsim"` and `"pooled"`; the first is missing from an index with `single`.

    Raises:
        ValueError: if no judged query is among the topics, and as [`build_index`].
    """
    judged = {qid: text for qid, text in topics.items() if qid in qrels}
    if not judged:
        raise ValueError("No judged query is among the topics: do topics and qrels belong together?")
    if unknown := [qid for qid in qrels if qid not in topics]:
        logger.warning(
            "%d of the %d judged queries are not among the topics (such as %r); each scores 0.",
            len(unknown), len(qrels), unknown[0],
        )  # fmt: skip
    if candidates is not None:
        wanted = {docid for qid in judged for docid in candidates.get(qid, ())}
        passages = ((docid, text) for docid, text in passages if docid in wanted)
    index = build_index(document_model, passages, Path(index_folder), batch_size=batch_size, **index_options)
    tokens, pooled = query_model.encode_both(list(judged.values()), "query", batch_size=batch_size)
    options: dict[str, Any] = {"candidates": candidates, "memory_gb": memory_gb}
    runs = {}
    if not index_options.get("single"):
        runs["maxsim"] = index.search(tokens, list(judged), **options)
    runs["pooled"] = index.search_pooled(pooled, list(judged), **options)
    measured = {}
    for scoring, run in runs.items():
        found = score_run(run, {qid: dict(documents) for qid, documents in qrels.items()}, per_query=True)
        per_query = found.pop("per_query")
        measured[scoring] = Measured(run, found, per_query)
    return measured
