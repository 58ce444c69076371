"""Fusion: the scores of ranx, weights that never see the query they are used on, and what is refused."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from ranx_pairs import EXPECTED, WAYS, pairs, summary

from optical_hf.metrics.miracl_ndcg.miracl_ndcg import score_run
from optical_hf.retrieval import fusion
from optical_hf.retrieval.fusion import cross_validate, fuse

ONE = {"q": {"a": 4.0, "b": 3.0, "c": 2.0}}
OTHER = {"q": {"b": 9.0, "d": 9.0, "e": 1.0}}


@pytest.mark.parametrize("way", WAYS)
def test_scores_are_those_of_ranx(way):
    expected = json.loads(EXPECTED.read_text())
    for (one, other, weights), row in zip(pairs(), expected, strict=True):
        fused = fuse([one, other]) if way == "rrf" else fuse([one, other], "sum", way, weights)
        count, total = summary(fused)
        assert count == row[way][0] and total == pytest.approx(row[way][1], abs=1e-9)


def test_scores_by_hand():
    # Of equal scores the larger id is first, so d is before b.
    assert fuse([ONE, OTHER])["q"] == {
        "b": pytest.approx(1 / 62 + 1 / 62), "d": pytest.approx(1 / 61), "a": pytest.approx(1 / 61),
        "e": pytest.approx(1 / 63), "c": pytest.approx(1 / 63),
    }  # fmt: skip
    assert list(fuse([ONE, OTHER])["q"]) == ["b", "d", "a", "e", "c"]
    assert fuse([ONE, OTHER], "sum", "min-max", [1, 3])["q"] == {"b": 3.5, "d": 3.0, "a": 1.0, "e": 0.0, "c": 0.0}
    assert fuse([ONE, OTHER], "sum", "rank", [3, 3])["q"] == pytest.approx({"a": 3, "b": 4, "c": 1, "d": 3, "e": 1})
    # Means 3 and 19/3; deviations (2/3)^.5 and (128/9)^.5: b is 8/3 above the mean of the other run.
    z = fuse([ONE, OTHER], "sum", "z-score", [1, 1])["q"]
    assert z == pytest.approx({"a": 1.5**0.5, "b": 0.5**0.5, "c": -(1.5**0.5), "d": 0.5**0.5, "e": -(2**0.5)})
    # Equal weights by default, and three runs.
    assert fuse([ONE, OTHER, ONE], "sum")["q"]["a"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("normalise", ["min-max", "z-score"])
def test_scores_that_are_all_alike_are_0(normalise):
    alike = {"q": {"a": 0.1, "b": 0.1, "d": 0.1}}  # whose mean, as computed, is not .1
    assert fuse([alike, {"q": {"c": 2.0}}], "sum", normalise)["q"] == {"d": 0.0, "c": 0.0, "b": 0.0, "a": 0.0}


def test_a_query_that_a_run_lacks_is_fused_from_the_others(caplog):
    more = {**ONE, "p": {"x": 2.0, "y": 1.0}, "r": {}}
    fused = fuse([more, {**OTHER, "s": {"z": 1.0}}], "sum", weights=[0.5, 2])
    assert list(fused) == ["q", "p", "r", "s"]
    assert (fused["p"], fused["r"], fused["s"]) == ({"x": 0.5, "y": 0.0}, {}, {"z": 0.0})
    assert caplog.messages == [
        "run 1 lacks 1 of the 4 queries (such as 's'): they are fused from the other runs.",
        "run 2 lacks 2 of the 4 queries (such as 'p'): they are fused from the other runs.",
    ]


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        ([ONE], {}, "at least two runs, got 1"),
        ([ONE, OTHER], {"method": "mnz"}, "Unknown method 'mnz': choose one of rrf, sum"),
        ([ONE, OTHER], {"method": "sum", "normalise": "zmuv"}, "'zmuv': choose one of min-max, z-score, rank"),
        ([ONE, OTHER], {"weights": [1, 1]}, "reciprocal rank fusion has none"),
        ([ONE, OTHER], {"method": "sum", "weights": [1]}, "There are 1 weights for 2 runs"),
        ([ONE, OTHER], {"method": "sum", "weights": [1, -0.5]}, "The weight -0.5 must be a number that is not below"),
        ([ONE, OTHER], {"method": "sum", "weights": [1, float("nan")]}, "The weight nan must be"),
        ([ONE, OTHER], {"method": "sum", "weights": [0, 0]}, "All weights are 0"),
        ([ONE, {"q": {"b": 1.0, "a": float("nan")}}], {}, "run 2, query 'q', document 'a': the score is nan, which"),
        ([ONE, {"q": {"a": float("inf")}}], {"method": "sum"}, "document 'a': the score is inf, which cannot"),
        ([ONE, {"q": {"a": 1e308, "b": -1e308}}], {"method": "sum"}, "too large to be normalised by min-max"),
        ([ONE, OTHER, {"z": {"a": 1.0}}], {}, "run 3 shares no query with the other runs"),
    ],
)
def test_what_is_refused(runs, options, message):
    with pytest.raises(ValueError, match=message):
        fuse(runs, **options)


def judged_runs(count: int, seed: int = 0) -> tuple[list[dict], dict]:
    """Two runs of which the first ranks the relevant passage better for most queries, and their judgements."""
    chance = random.Random(seed)
    runs: list[dict] = [{}, {}]
    qrels = {}
    for number in range(count):
        qid = f"q{number:02}"
        docids = [f"d{place}" for place in range(12)]
        qrels[qid] = {chance.choice(docids): 1, chance.choice(docids): chance.randint(0, 3), "x": -1}
        for run, good in zip(runs, (0.6, 0.3), strict=True):
            run[qid] = {d: round(chance.random() + good * qrels[qid].get(d, 0), 2) for d in chance.sample(docids, 11)}
    return runs, qrels


@pytest.mark.parametrize("normalise", fusion.NORMALISATIONS)
def test_the_measure_inside_is_the_metric(normalise):
    runs, qrels = judged_runs(20)
    grid = fusion._simplex(2, 10)
    tables = {table.qid: table for table in fusion._tables(runs, normalise, None)}
    inside = np.mean([fusion._ndcg(tables[qid], qrels[qid], grid) for qid in qrels], axis=0)
    for weights, ndcg in zip(grid, inside, strict=True):
        expected = score_run(fuse(runs, "sum", normalise, weights.tolist()), qrels)["ndcg@10"]
        assert ndcg == pytest.approx(expected, abs=1e-9)


def test_all_weights_of_a_grid():
    assert fusion._simplex(2, 4).tolist() == [[0.5, 0.5], [0.25, 0.75], [0.75, 0.25], [0, 1], [1, 0]]
    three = fusion._simplex(3, 10)
    assert len(three) == 66 and np.allclose(three.sum(1), 1) and len({tuple(row) for row in three.tolist()}) == 66


def test_no_weight_was_chosen_on_the_query_it_is_used_on():
    runs, qrels = judged_runs(40)
    before = cross_validate(runs, qrels, folds=4)
    assert sorted(before.folds) == sorted(qrels) and sorted(before.folds.values()) == sorted([0, 1, 2, 3] * 10)
    changed = 0
    for qid, fold in before.folds.items():
        # The judgement is turned round: what the second run ranks last is all that is relevant.
        worst = min(runs[0][qid], key=runs[0][qid].get)
        poisoned = cross_validate(runs, {**qrels, qid: {worst: 1}}, folds=4)
        assert poisoned.folds == before.folds
        assert poisoned.fold_weights[fold] == before.fold_weights[fold]
        assert poisoned.run[qid] == before.run[qid]
        changed += poisoned.fold_weights != before.fold_weights
    assert changed  # it does weigh on the weights of other folds


def test_figures_and_weights_of_a_cross_validation():
    runs, qrels = judged_runs(40)
    extra = {"unjudged": {"a": 3.0, "b": 1.0}}
    runs = [{**run, **extra} for run in runs]
    chosen = cross_validate(runs, qrels, "min-max", folds=4)
    assert chosen.run_ndcg == [score_run(run, qrels)["ndcg@10"] for run in runs]
    assert chosen.equal_ndcg == score_run(fuse(runs, "sum"), qrels)["ndcg@10"]
    assert chosen.ndcg == score_run(chosen.run, qrels)["ndcg@10"] > max(chosen.run_ndcg)
    for qid in qrels:
        weights = chosen.fold_weights[chosen.folds[qid]]
        assert chosen.run[qid] == fuse(runs, "sum", "min-max", weights)[qid]
    assert chosen.run["unjudged"] == fuse(runs, "sum", "min-max", chosen.weights)["unjudged"]
    best = max(
        (score_run(fuse(runs, "sum", "min-max", list(w)), qrels)["ndcg@10"], list(w)) for w in fusion._simplex(2, 10)
    )
    assert chosen.weights == pytest.approx(best[1])
    assert cross_validate(runs, qrels, folds=4) == chosen
    assert cross_validate(runs, qrels, folds=4, seed=1).folds != chosen.folds


def test_equally_good_weights_are_equal_ones():
    runs = [{f"q{i}": {"a": 2.0, "b": 1.0} for i in range(4)}] * 3
    qrels = {f"q{i}": {"a": 1} for i in range(4)}
    assert cross_validate(runs, qrels, folds=2).weights == [0.3, 0.3, 0.4]


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (2, {"folds": 1}, "folds must be at least 2 and at most the 6 judged queries, got 1"),
        (2, {"folds": 7}, "at most the 6 judged queries, got 7"),
        (2, {"folds": 2.5}, "folds must be a whole number"),
        (9, {}, "9 runs in 10 steps are 43,758 weights to try, more than 20,000"),
    ],
)
def test_what_cross_validation_refuses(count, options, message):
    runs, qrels = judged_runs(6)
    with pytest.raises(ValueError, match=message):
        cross_validate((runs * 5)[:count], qrels, **options)
    with pytest.raises(ValueError, match="None of the 1 judged queries is in the runs"):
        cross_validate(runs, {"other": {"a": 1}})
