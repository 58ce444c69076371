"""Several runs fused into one: by reciprocal ranks, or by a weighted sum of normalised scores."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from ..bounds import check_count
from ..data.trec_files import rank
from ..metrics import NDCG
from ..metrics.miracl_ndcg.miracl_ndcg import score_run
from .search import Run

logger = logging.getLogger(__name__)

METHODS = ("rrf", "sum")
NORMALISATIONS = ("min-max", "z-score", "rank")
RRF_K = 60  # of Cormack et al.
MOST_WEIGHTS = 20_000  # points of a grid: those of eight runs in steps of a tenth
_SMALLEST = 1e-9  # what ranx divides by at the least

AnyRun = Mapping[str, Mapping[str, float]]
Qrels = Mapping[str, Mapping[str, int]]


def fuse(
    runs: Sequence[AnyRun],
    method: str = "rrf",
    normalise: str = "min-max",
    weights: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
) -> Run:
    r"""Fuse runs into one, query by query.

    `"rrf"` is reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): a document scores
    \\(\sum_i 1 / (60 + rank_i)\\) over the runs that found it. `"sum"` is \\(\sum_i w_i s_i\\) over the scores
    normalised within each run and query, by which `normalise` says:

    - `"min-max"`: from 0 for the lowest score to 1 for the highest;
    - `"z-score"`: less the mean, in (population) standard deviations;
    - `"rank"`: \\(1 - (rank - 1) / n\\) for the n documents that the run found.

    These are the scores of ranx (`rrf`, `wsum`, `min-max`, `zmuv`, `rank`). As there, min-max and z-score make 0 of
    scores that are all alike, and a document that a run did not find gets 0 of it, which by z-score is the run's mean.
    Three things differ. Ranks follow trec_eval, where equal scores are ordered by document id, descending; ranx keeps
    the order in which they came. A query that a run lacks is fused from the other runs; ranx refuses. Scores that are
    all alike become exactly 0; ranx divides what rounding leaves of them by 1e-9.

    Args:
        runs (`Sequence[dict[str, dict[str, float]]]`):
            At least two runs, scores by query id and document id.
        method (`str`, *optional*, defaults to `"rrf"`):
            `"rrf"` or `"sum"`.
        normalise (`str`, *optional*, defaults to `"min-max"`):
            For `"sum"`: `"min-max"`, `"z-score"` or `"rank"`.
        weights (`Sequence[float]`, *optional*):
            For `"sum"`: a weight a run, not negative and not all 0; equal ones by default. They are not rescaled.
        names (`Sequence[str]`, *optional*):
            What the runs are called in warnings and errors; `"run 1"` and so on by default.

    Returns:
        `dict[str, dict[str, float]]`: the fused run, best first, of every query and document that any run has.

    Raises:
        ValueError: on fewer than two runs, an unknown method or normalisation, wrong weights, a score that is NaN or
            infinite, or a run that shares no query with the others.

    Example:
        >>> fuse([{"q": {"a": 2.0, "b": 1.0}}, {"q": {"b": 9.0}}], "sum", weights=[0.4, 0.6])
        {'q': {'a': 0.4, 'b': 0.0}}
    """
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}: choose one of {', '.join(METHODS)}.")
    if method == "rrf" and weights is not None:
        raise ValueError("`weights` are for the method 'sum': reciprocal rank fusion has none.")
    queries = list(_tables(runs, None if method == "rrf" else normalise, names))
    if method == "rrf":
        chosen = np.ones(len(runs))
    else:
        chosen = _checked_weights(weights, len(runs))
    return {table.qid: table.fused(chosen) for table in queries}


@dataclass(frozen=True)
class CrossValidated:
    """Runs fused by weights that were chosen by cross-validation.

    Args:
        run (`dict[str, dict[str, float]]`): the fused run. A judged query is fused by the weights of its fold, any
            other by `weights`.
        weights (`list[float]`): those chosen on all judged queries, to fuse the runs of other queries.
        fold_weights (`list[list[float]]`): by fold, those chosen on the judged queries of the other folds.
        folds (`dict[str, int]`): the fold of every judged query.
        ndcg (`float`): nDCG@10 of `run`. The mean is over the judged queries, as of the next two.
        equal_ndcg (`float`): the same with equal weights.
        run_ndcg (`list[float]`): the same of every run alone.
    """

    run: Run
    weights: list[float]
    fold_weights: list[list[float]]
    folds: dict[str, int]
    ndcg: float
    equal_ndcg: float
    run_ndcg: list[float]


def cross_validate(
    runs: Sequence[AnyRun],
    qrels: Qrels,
    normalise: str = "min-max",
    folds: int = 5,
    steps: int = 10,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> CrossValidated:
    """Choose the weights of [`fuse`]'s `"sum"` on judged queries, such that none is used on a query it was chosen on.

    The judged queries are dealt out to folds. A fold is fused by the weights that have the best nDCG@10 on the queries
    of the other folds. All weights in steps of `1 / steps` that add up to 1 are tried; among equally good ones, those
    nearest to equal weights are taken.

    Args:
        runs, normalise, names:
            As in [`fuse`].
        qrels (`dict[str, dict[str, int]]`):
            Relevances by query id and document id. Queries of the runs without judgement are fused too.
        folds (`int`, *optional*, defaults to 5):
            At least 2, and no more than judged queries.
        steps (`int`, *optional*, defaults to 10):
            Into how many steps a weight from 0 to 1 is cut.
        seed (`int`, *optional*, defaults to 0):
            Of the folds.

    Returns:
        [`CrossValidated`]: the fused run, the weights, and their figures.

    Raises:
        ValueError: as [`fuse`]; if no run has a judged query, there are too few of them for the folds, or the runs are
            so many that there are over 20,000 weights to try.
    """
    check_count("folds", folds)
    check_count("steps", steps)
    tables = {table.qid: table for table in _tables(runs, normalise, names)}
    judged = sorted(qid for qid in qrels if qid in tables)
    if not judged:
        raise ValueError(f"None of the {len(qrels)} judged queries is in the runs: do these files belong together?")
    if not 2 <= folds <= len(judged):
        raise ValueError(f"folds must be at least 2 and at most the {len(judged)} judged queries, got {folds}.")
    count = math.comb(steps + len(runs) - 1, steps)
    if count > MOST_WEIGHTS:
        raise ValueError(
            f"{len(runs)} runs in {steps} steps are {count:,} weights to try, more than {MOST_WEIGHTS:,}: give fewer "
            "runs, or the weights themselves."
        )
    grid = _simplex(len(runs), steps)
    random.Random(seed).shuffle(judged)
    fold_of = {qid: place % folds for place, qid in enumerate(judged)}
    shown = tqdm(judged, desc="Trying weights", unit="query", delay=2)
    figures = np.array([_ndcg(tables[qid], qrels[qid], grid) for qid in shown])  # (queries, weights)
    numbers = np.array([fold_of[qid] for qid in judged])
    fold_weights = [grid[_best(figures[numbers != fold])] for fold in range(folds)]
    weights = grid[_best(figures)]
    run = {
        qid: table.fused(fold_weights[fold_of[qid]] if qid in fold_of else weights) for qid, table in tables.items()
    }
    equal = {qid: tables[qid].fused(np.full(len(runs), 1 / len(runs))) for qid in judged}
    ndcgs = [score_run(each, qrels, measures=[NDCG])[NDCG] for each in (run, equal, *runs)]
    chosen = [each.tolist() for each in fold_weights]
    return CrossValidated(run, weights.tolist(), chosen, fold_of, ndcgs[0], ndcgs[1], ndcgs[2:])


@dataclass(frozen=True)
class _Table:
    """What the runs found for one query: document ids, descending, and their scores, `(documents, runs)`."""

    qid: str
    docids: list[str]
    scores: np.ndarray

    def fused(self, weights: np.ndarray) -> dict[str, float]:
        # Summed run by run: a product of matrices may round otherwise, and another machine's would again.
        totals = np.zeros(len(self.docids))
        for column, weight in zip(self.scores.T, weights, strict=True):
            totals += weight * column
        scores = dict(zip(self.docids, totals.tolist(), strict=True))
        return {docid: scores[docid] for docid in rank(scores)}


def _tables(runs: Sequence[AnyRun], normalise: str | None, names: Sequence[str] | None) -> Iterator[_Table]:
    """Yield the table of every query, of reciprocal ranks if `normalise` is `None`."""
    if len(runs) < 2:
        raise ValueError(f"Fusion needs at least two runs, got {len(runs)}.")
    if normalise is not None and normalise not in NORMALISATIONS:
        raise ValueError(f"Unknown normalisation {normalise!r}: choose one of {', '.join(NORMALISATIONS)}.")
    called = [f"run {number}" for number in range(1, len(runs) + 1)] if names is None else list(names)
    queries = list(dict.fromkeys(qid for run in runs for qid in run))
    for number, (run, name) in enumerate(zip(runs, called, strict=True)):
        others = {qid for other in (*runs[:number], *runs[number + 1 :]) for qid in other}
        if not others & run.keys():
            raise ValueError(f"{name} shares no query with the other runs: do these runs belong together?")
        if lacking := [qid for qid in queries if qid not in run]:
            logger.warning(
                "%s lacks %d of the %d queries (such as %r): they are fused from the other runs.",
                name, len(lacking), len(queries), lacking[0],
            )  # fmt: skip
    for qid in queries:
        docids = sorted({docid for run in runs for docid in run.get(qid, ())}, reverse=True)
        places = {docid: place for place, docid in enumerate(docids)}
        scores = np.zeros((len(docids), len(runs)))
        for number, (run, name) in enumerate(zip(runs, called, strict=True)):
            if found := run.get(qid):
                rows = [places[docid] for docid in found]
                scores[rows, number] = _normalised(found, normalise, f"{name}, query {qid!r}")
        yield _Table(qid, docids, scores)


def _normalised(found: Mapping[str, float], normalise: str | None, where: str) -> np.ndarray:
    scores = np.fromiter(found.values(), dtype=np.float64, count=len(found))
    if not np.isfinite(scores).all():
        docid = next(docid for docid, score in found.items() if not math.isfinite(score))
        raise ValueError(f"{where}, document {docid!r}: the score is {found[docid]}, which cannot be fused.")
    if normalise in (None, "rank"):
        ranks = {docid: place for place, docid in enumerate(rank(found))}
        places = np.array([ranks[docid] for docid in found])
        return 1 / (RRF_K + places + 1) if normalise is None else 1 - places / len(found)
    if scores.min() == scores.max():
        return np.zeros(len(scores))
    with np.errstate(over="ignore", invalid="ignore"):
        if normalise == "min-max":
            normalised = (scores - scores.min()) / max(scores.max() - scores.min(), _SMALLEST)
        else:
            normalised = (scores - scores.mean()) / max(scores.std(), _SMALLEST)
    if not np.isfinite(normalised).all():
        raise ValueError(f"{where}: the scores are too large to be normalised by {normalise}; divide them first.")
    return normalised


def _checked_weights(weights: Sequence[float] | None, runs: int) -> np.ndarray:
    if weights is None:
        return np.full(runs, 1 / runs)
    if len(weights) != runs:
        raise ValueError(f"There are {len(weights)} weights for {runs} runs: give one weight a run, in their order.")
    for weight in weights:
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"The weight {weight} must be a number that is not below 0.")
    if not any(weights):
        raise ValueError("All weights are 0: at least one run has to count.")
    return np.array(weights, dtype=np.float64)


def _simplex(parts: int, steps: int) -> np.ndarray:
    """All weights in whole steps that add up to 1, those nearest to equal ones first."""

    def splits(parts: int, left: int) -> Iterator[tuple[int, ...]]:
        if parts == 1:
            yield (left,)
            return
        for first in range(left + 1):
            yield from ((first, *rest) for rest in splits(parts - 1, left - first))

    points = sorted(splits(parts, steps), key=lambda point: (sum(share * share for share in point), point))
    return np.array(points) / steps


def _ndcg(table: _Table, judged: Mapping[str, int], grid: np.ndarray) -> np.ndarray:
    """Return the nDCG@10 of one query by every point of the grid, as trec_eval computes it."""
    gains = np.array([max(judged.get(docid, 0), 0) for docid in table.docids], dtype=np.float64)
    discounts = 1 / np.log2(np.arange(2, 12))
    ideal = np.sort([max(relevance, 0) for relevance in judged.values()])[::-1][:10]
    if not gains.any():
        return np.zeros(len(grid))
    totals = np.zeros((len(grid), len(table.docids)))
    for column, weights in zip(table.scores.T, grid.T, strict=True):
        totals += weights[:, None] * column
    # In single precision, as trec_eval does; documents are in descending order, which a stable sort keeps for ties.
    best = np.argsort(-totals.astype(np.float32), axis=1, kind="stable")[:, :10]
    return gains[best] @ discounts[: best.shape[1]] / (ideal @ discounts[: len(ideal)])


def _best(figures: np.ndarray) -> int:
    # To ten digits: sums in another order would prefer one of two equal points.
    return int(np.round(figures.mean(axis=0), 10).argmax())
