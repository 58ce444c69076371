"""The metric of `evaluate.load("miracl_ndcg")`, beside pytrec_eval, which it checks its input for."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from statistics import fmean

from .comparison import Comparison, check_equal, compare
from .setup import Setup


def measure(setup: Setup) -> Iterator[Comparison]:
    """Measure a run of 100 passages a query, with ten judgements."""
    import evaluate

    chance = random.Random(0)
    queries, depth = setup.size((2000, 100), (20, 20))
    run = {
        f"q{query}": {f"d{docid}": chance.random() for docid in chance.sample(range(10**5), depth)}
        for query in range(queries)
    }
    qrels = {qid: {docid: chance.randint(0, 1) for docid in list(found)[:10]} for qid, found in run.items()}
    metric = evaluate.load("miracl_ndcg")

    def ours() -> list[float]:
        scores = metric.compute(predictions=run, references=qrels)
        return [scores["ndcg@10"], scores["recall@100"]]

    def make_peer() -> Callable[[], list[float]]:
        import pytrec_eval

        def score() -> list[float]:
            found = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.100"}).evaluate(run).values()
            return [fmean(query[name] for query in found) for name in ("ndcg_cut_10", "recall_100")]

        return score

    def notes(scores: list[float], theirs: list[float] | None) -> list[str]:
        check_equal("scores", scores, theirs, 1e-9)
        return []

    yield compare(f"miracl_ndcg, {queries} queries", ours, "pytrec_eval", make_peer, rounds=setup.rounds, notes=notes)
