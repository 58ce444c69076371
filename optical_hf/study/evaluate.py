"""A model's questions searched over the passages of an evaluation set, for each pair of languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation.language_bias import language_bias
from ..metrics.miracl_ndcg.miracl_ndcg import score_run
from ..models.modeling_optical import OpticalModel
from ..retrieval.index.build import PassageIndex
from .sets import EvaluationSet


def evaluate_set(
    evaluation_set: EvaluationSet, model: OpticalModel, indexes: Mapping[str, PassageIndex], in_english: bool = False
) -> dict[str, Any]:
    """Search a set's passages with the questions of each language, by MaxSim and by pooled vectors.

    Args:
        evaluation_set ([`EvaluationSet`]): its questions, and which passages they are searched over.
        model ([`OpticalTeacher`] or [`OpticalStudent`]): encodes the questions.
        indexes (`Mapping[str, PassageIndex]`): the passages, by language.
        in_english (`bool`, *optional*, defaults to `False`):
            Whether the questions are asked in English, for the ceiling; those without an English version are left out.

    Returns:
        `dict`: what `<set>.json` holds: the scores of each pair of languages, and of a parallel set the language bias.
    """
    pairs: list[dict[str, Any]] = []
    bias: dict[str, dict[str, list[float]]] = {"maxsim": {}, "pooled": {}}
    before: tuple[Any, ...] = ()
    runs: dict[str, dict[str, Any]] = {}
    for language, questions in evaluation_set.questions.items():
        texts = questions.english if in_english else questions.topics
        if texts is None:
            continue
        documents = evaluation_set.document_languages(language)
        if (texts, documents) != before:  # the English questions of a parallel set are the same for every language
            opened = {other: indexes[other] for other in documents}
            runs = _search(model, texts, opened, complete=evaluation_set.parallel)
            before = (texts, documents)
        qids = list(questions.qrels)
        for other in documents:
            entry: dict[str, Any] = {"query_language": language, "document_language": other, "qids": qids}
            for scoring in runs:
                scores = score_run(runs[scoring][other], questions.qrels, per_query=True)
                per_query = scores.pop("per_query")
                by_measure = {name: [per_query[qid][name] for qid in qids] for name in scores}
                entry[scoring] = {**scores, "per_query": by_measure}
            pairs.append(entry)
        if evaluation_set.parallel and not in_english:
            for scoring in runs:
                ranks = language_bias(runs[scoring], questions.qrels)
                bias[scoring][language] = [ranks[qid] for qid in qids]
    return {
        "set": evaluation_set.name,
        "protocol": evaluation_set.protocol,
        "pairs": pairs,
        "language_bias": {scoring: _means(by_language) for scoring, by_language in bias.items()}
        if bias["maxsim"]
        else None,
    }


def _search(
    model: OpticalModel, texts: Mapping[str, str], indexes: Mapping[str, PassageIndex], complete: bool
) -> dict[str, dict[str, Any]]:
    tokens, pooled = model.encode(list(texts.values()), "query", pooled="both")
    runs: dict[str, dict[str, Any]] = {"maxsim": {}, "pooled": {}}
    for language, index in indexes.items():
        k = len(index) if complete else 100
        runs["maxsim"][language] = index.search(tokens, list(texts), k=k)
        runs["pooled"][language] = index.search_pooled(pooled, list(texts), k=k)
    return runs


def _means(per_query: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    by_language = {language: sum(values) / len(values) for language, values in per_query.items()}
    return {"mean": sum(by_language.values()) / len(by_language), "by_language": by_language, "per_query": per_query}
