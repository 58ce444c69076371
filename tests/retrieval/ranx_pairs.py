"""Pairs of random runs with ties and missing queries, and what ranx 0.3.21 fuses them to.

    pip install "ranx==0.3.21" && PYTHONPATH=. python tests/retrieval/ranx_pairs.py

writes `ranx_pairs.json` anew: of every pair and way of fusing, the number of documents, and one sum over all fused
scores that no other scores are likely to have. ranx is no dependency of the tests: with numba it takes 250 MB.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path

from optical_hf.data.trec_files import rank

EXPECTED = Path(__file__).with_suffix(".json")
WAYS = ("rrf", "min-max", "z-score", "rank")
Run = dict[str, dict[str, float]]


def pairs() -> list[tuple[Run, Run, list[float]]]:
    """200 pairs of runs with their weights: up to 12 documents a query of 20, many ties, some queries gone."""
    chance = random.Random(0)
    made = []
    for _ in range(200):
        runs = []
        for queries in (("q0", "q1", "q2", "q3"), ("q1", "q2", "q3", "q4")):
            run = {}
            for qid in queries:
                numbers = chance.sample(range(20), chance.randint(1, 12))
                kinds = (lambda: chance.randint(-2, 3) / 4, lambda: chance.gauss(0, 5), lambda: 0.5)
                score = chance.choice(kinds)
                run[qid] = {f"d{number}": float(score()) for number in numbers}
            runs.append(run)
        weights = [round(chance.random(), 3), round(chance.random(), 3)]
        made.append((runs[0], runs[1], weights))
    return made


def summary(run: Mapping[str, Mapping[str, float]]) -> tuple[int, float]:
    """Return the number of documents, and a sum of their scores, each times a number of its own."""
    terms = [
        score * math.sqrt(int(docid[1:]) + 1) * (int(qid[1:]) + 1)
        for qid, found in run.items()
        for docid, score in found.items()
    ]
    return len(terms), math.fsum(terms)


def _of_ranx(runs: tuple[Run, Run], way: str, weights: list[float]) -> Run:
    import ranx

    # In trec_eval's order, which ranx's stable sort keeps for ties. It refuses queries that a run lacks: there the run
    # finds a document that no other has, which is taken out of what ranx returns.
    queries = ["q0", "q1", "q2", "q3", "q4"]
    found = [{qid: run.get(qid, {"none": 1.0}) for qid in queries} for run in runs]
    given = [ranx.Run({qid: {docid: row[qid][docid] for docid in rank(row[qid])} for qid in queries}) for row in found]
    if way == "rrf":
        fused = ranx.fuse(given, norm=None, method="rrf")
    else:
        norm = {"z-score": "zmuv"}.get(way, way)
        fused = ranx.fuse(given, norm=norm, method="wsum", params={"weights": weights})
    return {qid: {d: s for d, s in row.items() if d != "none"} for qid, row in fused.to_dict().items()}


if __name__ == "__main__":
    rows = [{way: summary(_of_ranx((one, other), way, weights)) for way in WAYS} for one, other, weights in pairs()]
    EXPECTED.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
