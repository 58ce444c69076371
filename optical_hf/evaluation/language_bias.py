"""How far a retriever tears translations of one passage apart when all languages are searched at once."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..data.trec_files import rank


def language_bias(
    runs: Mapping[str, Mapping[str, Mapping[str, float]]], qrels: Mapping[str, Mapping[str, int]]
) -> dict[str, float]:
    """Language bias of each query: largest minus smallest rank of its relevant passage's translations, in one list.

    The rankings over all passage languages are pooled by score into one, ranked as trec_eval does (equal scores by
    document id, then by language, descending). A retriever blind to language ranks a passage and its translations next
    to each other: the bias is then their number less one, and lower is better. See arXiv 2408.10536. Where a query
    has several relevant passages, it is the mean over them, as each has translations of its own.

    Args:
        runs (`dict[str, dict[str, dict[str, float]]]`):
            By passage language, a run of the same queries, in one language, over the same passages, translated:
            scores by query id and document id. Complete: every passage of the pool is scored.
        qrels (`dict[str, dict[str, int]]`):
            Relevances by query id and document id, the same for every language. Queries without a relevant passage
            are left out, and so are the runs' queries that are not judged.

    Returns:
        `dict[str, float]`: the bias by query id, in the order of the qrels.

    Raises:
        ValueError: if there are fewer than two languages or no query with a relevant passage; or, naming language and
            query, if a ranking is missing, lacks a relevant passage or one that another language has, or scores NaN.

    Example:
        >>> runs = {"en": {"q": {"a": 0.9, "b": 0.8, "c": 0.7}}, "sw": {"q": {"a": 0.6, "b": 0.2, "c": 0.1}}}
        >>> language_bias(runs, {"q": {"a": 1}})
        {'q': 3.0}
    """
    if len(runs) < 2:
        raise ValueError(f"Language bias compares passage languages: `runs` needs two or more, not {len(runs)}.")
    relevant = {qid: [docid for docid, value in judged.items() if value > 0] for qid, judged in qrels.items()}
    biases = {qid: _bias(runs, qid, docids) for qid, docids in relevant.items() if docids}
    if not biases:
        raise ValueError("`qrels` holds no query with a relevant passage.")
    return biases


def _bias(runs: Mapping[str, Mapping[str, Mapping[str, float]]], qid: str, relevant: list[str]) -> float:
    pooled: dict[str, float] = {}
    passages = None
    for language, run in runs.items():
        where = f"run over {language!r}, query {qid!r}"
        if qid not in run:
            raise ValueError(f"{where}: no ranking. Search for every judged query, or leave it out of the qrels.")
        for docid in relevant:
            if docid not in run[qid]:
                raise ValueError(
                    f"{where}: the relevant passage {docid!r} is not ranked. Rank all: `k` as large as the pool."
                )
        passages = run[qid].keys() if passages is None else passages
        if run[qid].keys() != passages:
            odd = min(run[qid].keys() ^ passages)
            raise ValueError(
                f"{where}: passage {odd!r} is ranked in only one of this language and {next(iter(runs))!r}. The "
                "languages must hold the same passages, all of them ranked."
            )
        for docid, score in run[qid].items():
            if math.isnan(score):
                raise ValueError(f"{where}, passage {docid!r}: the score is NaN.")
            pooled[_pooled_id(docid, language)] = score
    ranks = {pooled_id: position for position, pooled_id in enumerate(rank(pooled))}
    spreads = []
    for docid in relevant:
        positions = [ranks[_pooled_id(docid, language)] for language in runs]
        spreads.append(max(positions) - min(positions))
    return sum(spreads) / len(spreads)


def _pooled_id(docid: str, language: str) -> str:
    # No id or code has a space in it, and a space sorts before all they have: by document id, then by language.
    return f"{docid} {language}"
