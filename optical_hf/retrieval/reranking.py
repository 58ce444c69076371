"""Reranking: the best passages of a run scored anew, by a retriever or by a cross-encoder."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Mapping
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from ..bounds import check_count
from ..data.characters import visible
from ..data.retrieval_set import check_passages
from ..data.trec_files import rank
from ..files import scratch
from ..models.cross_encoders import check_cross_encoder
from ..models.modeling_optical import OpticalModel
from .index.build import build_index
from .search import Run

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

logger = logging.getLogger(__name__)


def rerank(
    run: Mapping[str, Mapping[str, float]],
    topics: Mapping[str, str],
    passages: Iterable[tuple[str, str]],
    model: OpticalModel | CrossEncoder,
    k: int = 100,
    *,
    document_model: OpticalModel | None = None,
    pooled: bool = False,
    batch_size: int = 32,
    memory_gb: float = 4.0,
) -> Run:
    """Score every query's best `k` passages of a run anew, and put them first by these scores.

    What is below them, or is not in the collection and so cannot be scored, keeps its order below the reranked, with
    scores below theirs. The ranking of a query without text stays as it is. To drop the rest, cut the run to
    `k` before.

    Args:
        run (`dict[str, dict[str, float]]`):
            Scores by query id and document id.
        topics (`dict[str, str]`):
            Queries by id.
        passages (`Iterable[tuple[str, str]]`):
            The collection, such as of [`iter_passages`]; the texts of what is reranked are held in memory.
        model ([`OpticalStudent`], [`OpticalTeacher`] or `CrossEncoder`):
            A retriever, or a cross-encoder of sentence-transformers that gives one score, whose logits are taken: its
            sigmoid would make equal what is far from 0.
        k (`int`, *optional*, defaults to 100):
            Passages a query.
        document_model ([`OpticalStudent`] or [`OpticalTeacher`], *optional*):
            Encodes the passages, if `model` is a retriever that encodes the queries only.
        pooled (`bool`, *optional*, defaults to `False`):
            Score by the retriever's pooled vectors instead of MaxSim.
        batch_size (`int`, *optional*, defaults to 32):
            Texts or pairs a forward pass; those of like length are put together.
        memory_gb (`float`, *optional*, defaults to 4.0):
            Most that the scoring by vectors holds, in GB; the vectors lie in a temporary folder.

    Returns:
        `dict[str, dict[str, float]]`: the new run, best first, of the same queries and documents.

    Raises:
        ValueError: if `model` is neither, `k` is not positive, no query has a text, no passage is there, or a score is
            NaN or infinite.

    Example:

    ```python
    >>> run = rerank(read_run("bm25.trec"), read_topics("topics.tsv"), iter_passages("passages.jsonl"), model, k=50)
    >>> write_run(run, "reranked.trec")
    ```
    """
    check_count("k", k)
    if not isinstance(model, OpticalModel):
        check_cross_encoder(model)
        if document_model is not None or pooled:
            raise ValueError("A cross-encoder has no vectors: leave out `document_model` and `pooled`.")
    without = dict.fromkeys(qid for qid in run if not visible(topics.get(qid, "")).strip())
    if len(without) == len(run):
        raise ValueError(f"None of the {len(run)} queries of the run has a text: do these files belong together?")
    if without:
        logger.warning(
            "%d of the %d queries of the run have no text (such as %r): their ranking stays as it is.",
            len(without), len(run), next(iter(without)),
        )  # fmt: skip
    ranked = {qid: rank(found) for qid, found in run.items()}
    candidates = {qid: found[:k] for qid, found in ranked.items() if qid not in without}
    wanted = [docid for docids in candidates.values() for docid in docids]
    if not wanted:
        raise ValueError("The run has no results to rerank.")
    named = set(wanted)
    texts = {docid: text for docid, text in passages if docid in named}
    check_passages("passages to rerank", wanted, texts)
    candidates = {qid: [docid for docid in docids if docid in texts] for qid, docids in candidates.items()}
    if isinstance(model, OpticalModel):
        scores = _score_vectors(
            model, document_model or model, topics, texts, candidates, pooled, batch_size, memory_gb
        )
    else:
        scores = score_pairs(model, topics, texts, candidates, batch_size)
    return {
        qid: _above(scores[qid], found) if scores.get(qid) else {docid: run[qid][docid] for docid in found}
        for qid, found in ranked.items()
    }


def score_pairs(
    model: CrossEncoder,
    topics: Mapping[str, str],
    texts: Mapping[str, str],
    candidates: Mapping[str, Collection[str]],
    batch_size: int = 32,
) -> Run:
    """Score candidates by a cross-encoder. Under several processes each scores a part, and all get the same run.

    Args:
        model (`CrossEncoder`): of one score.
        topics, texts (`Mapping[str, str]`): queries and passages by id.
        candidates (`Mapping[str, Collection[str]]`): document ids by query id, all of them in `texts`.
        batch_size (`int`, *optional*, defaults to 32): pairs a forward pass.

    Returns:
        `dict[str, dict[str, float]]`: the run, logits by query id and document id, best first.

    Raises:
        ValueError: naming query and document, if a score is NaN or infinite.
    """
    ids = [(qid, docid) for qid, docids in candidates.items() for docid in docids]
    state = PartialState()
    with state.split_between_processes(ids) as own:
        pairs: list[Any] = [(topics[qid], texts[docid]) for qid, docid in own]
        shown = state.is_main_process and len(pairs) >= 200
        scores = model.predict(
            pairs, batch_size=batch_size, show_progress_bar=shown, activation_fn=torch.nn.Identity()
        ).tolist() if pairs else []  # fmt: skip
    run: Run = {qid: {} for qid in candidates}
    for (qid, docid), score in zip(ids, gather_object(scores), strict=True):
        if not math.isfinite(score):
            raise ValueError(f"Query {qid!r}, document {docid!r}: the cross-encoder's score is {score}.")
        run[qid][docid] = score
    return {qid: {docid: found[docid] for docid in rank(found)} for qid, found in run.items()}


def _score_vectors(
    query_model: OpticalModel,
    document_model: OpticalModel,
    topics: Mapping[str, str],
    texts: Mapping[str, str],
    candidates: Mapping[str, Collection[str]],
    pooled: bool,
    batch_size: int,
    memory_gb: float,
) -> Run:
    # As `evaluate_collection` reranks: by an index of the candidates alone.
    if PartialState().num_processes > 1:
        raise ValueError(
            "A retriever reranks in one process here. `optical-hf evaluate --first_stage` does so in several."
        )
    qids = [qid for qid, docids in candidates.items() if docids]
    queries = [topics[qid] for qid in qids]
    options: dict[str, Any] = {"k": max(map(len, candidates.values())), "memory_gb": memory_gb}
    with scratch(gettempdir(), "optical-hf-rerank") as folder:
        index = build_index(
            document_model, list(texts.items()), folder / "index", batch_size=batch_size, single=pooled
        )
        if pooled:
            vectors = query_model.encode_pooled(queries, "query", batch_size=batch_size)
            return index.search_pooled(vectors, qids, candidates=candidates, **options)
        tokens = query_model.encode_tokens(queries, "query", batch_size=batch_size)
        return index.search(tokens, qids, candidates=candidates, **options)


def _above(reranked: Mapping[str, float], found: Iterable[str]) -> dict[str, float]:
    """Put what was found and not reranked below what was, in the order of `found`."""
    lowest = min(reranked.values())
    step = max(1.0, abs(lowest)) / 1000  # large enough to be seen in single precision, in which trec_eval compares
    rest = [docid for docid in found if docid not in reranked]
    below = {docid: lowest - step * place for place, docid in enumerate(rest, start=1)}
    return {docid: reranked[docid] for docid in rank(reranked)} | below
