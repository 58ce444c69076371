"""The metric against trec_eval (pytrec_eval), against nDCG written out by hand, and through all that evaluate does."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from optical_hf.data.trec_files import rank, read_qrels, read_run, write_qrels, write_run
from optical_hf.metrics import MIRACL_NDCG, register_metric
from optical_hf.metrics.miracl_ndcg.miracl_ndcg import score_run

ROOT = Path(__file__).parents[2]
MIRACL = ROOT.parent / "shared" / "data" / "miracl-v1.0"

register_metric()


@pytest.fixture
def metric(tmp_path):
    return evaluate.load("miracl_ndcg", cache_dir=str(tmp_path))


MEASURES = ("ndcg@10", "recall@100")


def by_hand(run, qrels):
    """nDCG@10 and Recall@100 by their definitions; means over the qrels, single-precision scores, ties by id."""
    ndcg, recall = {}, {}
    for qid, judged in qrels.items():
        results = run.get(qid, {})
        ranking = sorted(results, key=lambda docid: (np.float32(results[docid]), docid), reverse=True)[:100]
        gains = [max(judged.get(docid, 0), 0) for docid in ranking]
        ideal = sorted((max(relevance, 0) for relevance in judged.values()), reverse=True)
        best = sum(gain / math.log2(rank + 1) for rank, gain in enumerate(ideal[:10], start=1))
        found = sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains[:10], start=1))
        relevant = sum(relevance > 0 for relevance in judged.values())
        ndcg[qid] = found / best if best else 0.0
        recall[qid] = sum(gain > 0 for gain in gains) / relevant if relevant else 0.0
    return with_means({qid: {"ndcg@10": ndcg[qid], "recall@100": recall[qid]} for qid in qrels})


def with_means(per_query):
    """Add the means over all queries, as `trec_eval -c` takes them, and lay them out flat to be compared."""
    means = {name: sum(query[name] for query in per_query.values()) / len(per_query) for name in MEASURES}
    return means | {(qid, name): value for qid, query in per_query.items() for name, value in query.items()}


def scored(run, qrels):
    scores = score_run(run, qrels, per_query=True)
    return with_means(scores.pop("per_query")) | scores


def by_trec_eval(run, qrels):
    """`trec_eval -c`: the binding's per-query values, summed and divided by the number of queries in the qrels."""
    found = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.100"}).evaluate(run)
    nothing = {"ndcg_cut_10": 0.0, "recall_100": 0.0}
    values = {qid: found.get(qid, nothing) for qid in qrels}
    return with_means(
        {qid: {"ndcg@10": one["ndcg_cut_10"], "recall@100": one["recall_100"]} for qid, one in values.items()}
    )


def means_by_trec_eval(run, qrels):
    found = by_trec_eval(run, qrels)
    return {name: found[name] for name in MEASURES}


def generated(seed):
    """A random run and qrels: ties, grades, nothing relevant, missing, extra and empty queries, over 100 results."""
    rng = random.Random(seed)
    documents = [f"{article}#{part}" for article in range(rng.choice([4, 60])) for part in range(5)]
    queries = [f"q{number}" for number in range(rng.randint(1, 12))]
    grades = rng.choice([[0, 1], [0, 0, 0, 1], [-1, 0, 1, 2, 3]])
    qrels = {
        qid: {docid: rng.choice(grades) for docid in rng.sample(documents, rng.randint(1, min(15, len(documents))))}
        for qid in queries
    }
    kinds = [
        rng.random,
        lambda: -rng.random(),
        lambda: rng.randint(0, 4) / 4,
        lambda: 1.0,
        lambda: 1 + rng.randint(-9, 9) * 1e-8,  # ties in single precision only
    ]
    score = rng.choice(kinds)
    run = {}
    for qid in [*queries, "unjudged"]:
        kind = rng.random()
        if kind < 0.15:
            continue
        depth = 0 if kind < 0.25 else rng.randint(1, len(documents))
        run[qid] = {docid: score() for docid in rng.sample(documents, depth)}
    return run, qrels


def test_300_generated_runs():
    covered = {"missing": 0, "empty": 0, "deep": 0, "no_relevant": 0}
    for seed in range(300):
        run, qrels = generated(seed)
        scores = scored(run, qrels)
        assert scores == pytest.approx(by_trec_eval(run, qrels), abs=1e-9), seed
        assert scores == pytest.approx(by_hand(run, qrels), abs=1e-9), seed
        covered["missing"] += any(qid not in run for qid in qrels)
        covered["empty"] += any(not results for results in run.values())
        covered["deep"] += any(len(results) > 100 for results in run.values())
        covered["no_relevant"] += any(max(judged.values()) <= 0 for judged in qrels.values())
    assert min(covered.values()) > 20, covered


# Ids as trec_eval orders them, by bytes: some beyond ASCII, some whose order in UTF-16 would be another.
IDS = st.sampled_from(["a", "b", "ab", "A", "1", "10", "no_query", "é", "ñ#3", "\uffee", "😀", "\x7f"])
SCORES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 1.0 + 1e-8, 1e-50, 1e39, 2e39, -1e39, math.inf, -math.inf, 5, True]),
    st.floats(allow_nan=False),
)
GRADES = st.one_of(st.integers(-3, 3), st.sampled_from([-(10**12), 100, 1000]))


@settings(deadline=None, max_examples=300)
@given(
    run=st.dictionaries(IDS, st.dictionaries(IDS, SCORES)),
    qrels=st.dictionaries(IDS, st.dictionaries(IDS, GRADES, min_size=1), min_size=1),
    cutoff=st.integers(1, 100),
)
def test_any_run_against_plain_python(run, qrels, cutoff):
    with np.errstate(over="ignore"):
        expected = by_hand(run, qrels)
    assert scored(run, qrels) == pytest.approx(expected, abs=1e-12)
    for qid, judged in qrels.items():
        ranking = rank(run.get(qid, {}))[:cutoff]
        relevant = sum(grade > 0 for grade in judged.values())
        share = sum(judged.get(docid, 0) > 0 for docid in ranking) / relevant if relevant else 0.0
        assert score_run(run, {qid: judged}, [f"recall@{cutoff}"]) == {f"recall@{cutoff}": pytest.approx(share)}


# Any text but what a line of columns cannot hold: see `_check_id` of trec_files.
NAMES = st.text(st.characters(exclude_categories=["Cs", "Z"]), min_size=1, max_size=8).filter(
    lambda text: text.split() == [text] and not text.startswith("\ufeff")
)


@settings(deadline=None, max_examples=100)
@given(
    run=st.dictionaries(NAMES, st.dictionaries(NAMES, st.floats(allow_nan=False), min_size=1), min_size=1),
    qrels=st.dictionaries(NAMES, st.dictionaries(NAMES, st.integers(-(10**30), 1000), min_size=1), min_size=1),
    ending=st.sampled_from(["", ".gz"]),
)
def test_files_hold_what_was_written(run, qrels, ending, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    write_run(run, folder / f"run{ending}")
    write_qrels(qrels, folder / f"qrels{ending}")
    read = read_run(folder / f"run{ending}")
    assert read == run and [*read] == [*run]
    assert {qid: [*results] for qid, results in read.items()} == {qid: rank(run[qid]) for qid in run}
    assert read_qrels(folder / f"qrels{ending}") == qrels


@pytest.mark.skipif(not MIRACL.is_dir(), reason="the MIRACL judgements are not there")
@pytest.mark.parametrize("language", ["sw", "te", "yo", "en"])
def test_1000_runs_on_real_judgements(language):
    qrels = read_qrels(MIRACL / f"qrels.miracl-v1.0-{language}-dev.tsv")
    pool = sorted({docid for judged in qrels.values() for docid in judged})
    rng = random.Random(language)
    for _ in range(250):
        # Some queries of the real set at a time, so that a thousand runs stay quick.
        part = {qid: qrels[qid] for qid in rng.sample([*qrels], 12)}
        # Missing and empty queries, one that nobody judged, ties, unjudged documents, and more than 100 results.
        run = {
            qid: {
                docid: rng.randint(0, 40) / 8
                for docid in sorted({*rng.sample(pool, rng.choice([5, 120])), *judged})[: rng.choice([0, 500, 500])]
            }
            for qid, judged in [*part.items(), ("nobody's", {})]
            if rng.random() < 0.9
        }
        scores = scored(run, part)
        assert scores == pytest.approx(by_trec_eval(run, part), abs=1e-9)
        assert scores == pytest.approx(by_hand(run, part), abs=1e-9)


def test_whole_real_set_through_files(metric, tmp_path):
    qrels_path = MIRACL / "qrels.miracl-v1.0-sw-dev.tsv"
    if not qrels_path.is_file():
        pytest.skip("the MIRACL judgements are not there")
    qrels = read_qrels(qrels_path)
    rng = random.Random(0)
    run = {qid: {docid: rng.random() for docid in judged} for qid, judged in list(qrels.items())[::2]}
    write_run(run, tmp_path / "run.trec")
    scores = metric.compute(predictions=tmp_path / "run.trec", references=str(qrels_path))
    assert scores == pytest.approx(means_by_trec_eval(run, qrels), abs=1e-9)
    assert scores["recall@100"] == pytest.approx(math.ceil(len(qrels) / 2) / len(qrels), abs=0.02)


# Ranking c, b (tie, id descending), a, e; relevances 1, 0, 2 and e unjudged; d is relevant and not found.
HAND_RUN = {"q": {"a": 1.0, "b": 2.0, "c": 2.0, "e": 0.5}}
HAND_QRELS = {"q": {"a": 2, "b": 0, "c": 1, "d": 1}}
HAND_NDCG = (1 + 2 / 2) / (2 + 1 / math.log2(3) + 1 / 2)  # found: 1 at rank 1, 2 at rank 3; ideal: 2, 1, 1


def test_hand_computed(metric):
    scores = metric.compute(predictions=HAND_RUN, references=HAND_QRELS, per_query=True)
    assert scores["ndcg@10"] == pytest.approx(HAND_NDCG, abs=1e-12)
    assert scores["recall@100"] == pytest.approx(2 / 3, abs=1e-12)
    assert scores["per_query"] == {"q": {"ndcg@10": scores["ndcg@10"], "recall@100": scores["recall@100"]}}
    scores = metric.compute(predictions=HAND_RUN, references=HAND_QRELS, measures=["ndcg@1", "recall@2"])
    assert scores == {"ndcg@1": 0.5, "recall@2": pytest.approx(1 / 3)}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(1.0 + 1e-8, 1.0, 1 / math.log2(3)), (1.0 + 1e-6, 1.0, 1.0), (1e-8, 0.0, 1.0)],
)
def test_scores_are_compared_in_single_precision_as_trec_eval_does(first, second, expected):
    run, qrels = {"q": {"a": first, "b": second}}, {"q": {"a": 1}}
    assert score_run(run, qrels)["ndcg@10"] == pytest.approx(expected, abs=1e-12)


def test_every_judged_query_counts_and_no_other(caplog):
    run = {"found": {"a": 1.0}, "unjudged": {"a": 1.0}, "irrelevant": {"a": 1.0}, "empty": {}, "blank": {"a": 1.0}}
    qrels = {"found": {"a": 1}, "irrelevant": {"a": 0}, "empty": {"a": 1}, "missing": {"a": 1}, "blank": {}}
    scores = score_run(run, qrels, per_query=True)
    assert scores["ndcg@10"] == scores["recall@100"] == 0.25
    assert {qid: query["ndcg@10"] for qid, query in scores["per_query"].items()} == {
        "found": 1.0, "irrelevant": 0.0, "empty": 0.0, "missing": 0.0,
    }  # fmt: skip
    assert "2 of the 4 judged queries have no results" in caplog.text
    assert score_run({}, qrels) == {"ndcg@10": 0.0, "recall@100": 0.0}


def rows(table, values):
    return [{"query_id": qid, "docids": [*row], values: [*row.values()]} for qid, row in table.items()]


def aligned(run, qrels):
    ids = [*qrels]
    return rows({qid: run.get(qid, {}) for qid in ids}, "scores"), rows(qrels, "relevances")


@pytest.mark.parametrize("keep_in_memory", [False, True])
@pytest.mark.parametrize("form", ["dicts", "files", "batches", "single"])
def test_every_form_of_input_gives_the_same(form, keep_in_memory, tmp_path):
    metric = evaluate.load("miracl_ndcg", keep_in_memory=keep_in_memory, cache_dir=str(tmp_path))
    run, qrels = generated(90)
    expected = means_by_trec_eval(run, qrels)
    assert expected["ndcg@10"] > 0
    predictions, references = aligned(run, qrels)
    for _ in range(2):  # a metric can be used again
        if form == "dicts":
            scores = metric.compute(predictions=run, references=qrels)
        elif form == "files":
            write_run(run, tmp_path / "run")
            write_qrels(qrels, tmp_path / "qrels")
            scores = metric.compute(predictions=str(tmp_path / "run"), references=tmp_path / "qrels")
        elif form == "batches":
            metric.add_batch(predictions=predictions[:2], references=references[:2])
            metric.add_batch(predictions=predictions[2:], references=references[2:])
            scores = metric.compute()
        else:
            for prediction, reference in zip(predictions, references, strict=True):
                metric.add(prediction=prediction, reference=reference)
            scores = metric.compute()
        assert scores == pytest.approx(expected, abs=1e-12)


def test_combine(metric, tmp_path):
    other = evaluate.load("miracl_ndcg", cache_dir=str(tmp_path / "other"))
    both = evaluate.combine({"first": metric, "second": other})
    scores = both.compute(predictions=HAND_RUN, references=HAND_QRELS)
    assert scores == {
        f"{name}_{measure}": pytest.approx(value)
        for name in ("first", "second")
        for measure, value in (("ndcg@10", HAND_NDCG), ("recall@100", 2 / 3))
    }
    predictions, references = aligned(HAND_RUN, HAND_QRELS)
    both.add_batch(predictions=predictions, references=references)
    assert both.compute()["second_ndcg@10"] == pytest.approx(HAND_NDCG)
    alone = evaluate.combine(["miracl_ndcg"])
    assert alone.compute(predictions=HAND_RUN, references=HAND_QRELS)["ndcg@10"] == pytest.approx(HAND_NDCG)


def python(code, *arguments, home):
    """Start a fresh Python in which any connection to a network is an error."""
    guard = (
        "import socket\n"
        "def refuse(*_, **__): raise SystemExit('asked the network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    environment["HF_MODULES_CACHE"] = str(home / "modules")
    command = [sys.executable, "-c", guard + code, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=home, env=environment, stdout=pipe, stderr=pipe, text=True)


def output(process):
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    return json.loads(out.strip().splitlines()[-1])


def test_fresh_process_loads_it_by_name_without_a_network(tmp_path):
    code = """
import json, optical_hf, evaluate
metric = evaluate.load("miracl_ndcg")
print(json.dumps([metric.name, metric.compute(predictions={"q": {"a": 1.0, "b": 2.0}}, references={"q": {"a": 1}})]))
"""
    name, scores = output(python(code, home=tmp_path))
    assert name == "miracl_ndcg"
    assert scores == {"ndcg@10": pytest.approx(1 / math.log2(3)), "recall@100": 1.0}


def test_two_processes(tmp_path):
    code = """
import json, sys
import evaluate
script, data, rank = sys.argv[1], json.load(open(sys.argv[2])), int(sys.argv[3])
metric = evaluate.load(script, num_process=2, process_id=rank, experiment_id="two", cache_dir=sys.argv[4], timeout=900)
run, qrels = data[rank]
assert "optical_hf" not in sys.modules
print(json.dumps(metric.compute(predictions=run, references=qrels)))
"""
    run, qrels = generated(90)
    parts = [[*qrels][rank::2] for rank in range(2)]
    shards = [[{q: run[q] for q in part if q in run}, {q: qrels[q] for q in part}] for part in parts]
    (tmp_path / "data.json").write_text(json.dumps(shards), encoding="utf-8")
    # By the script's path and without this package, as in a Space.
    processes = [
        python(code, MIRACL_NDCG, tmp_path / "data.json", rank, tmp_path / "cache", home=tmp_path) for rank in range(2)
    ]
    scores = [output(process) for process in processes]
    assert scores[1] is None
    assert scores[0] == pytest.approx(means_by_trec_eval(run, qrels), abs=1e-12)


NAN = float("nan")
GOOD_RUN, GOOD_QRELS = {"q": {"a": 1.0}}, {"q": {"a": 1}}
ROW = {"query_id": "q", "docids": ["a"], "scores": [1.0]}
JUDGED = {"query_id": "q", "docids": ["a"], "relevances": [1]}


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ({"q": {"a": NAN}}, GOOD_QRELS, "query 'q', document 'a': the score is NaN"),
        ({"q": {"a": "high"}}, GOOD_QRELS, "query 'q', document 'a': the score 'high' is not a number"),
        ({"q": {1: 1.0}}, GOOD_QRELS, "query 'q', document 1: ids must be strings"),
        ({"q": ["a"]}, GOOD_QRELS, "query 'q': expected documents as a dict, not list"),
        (GOOD_RUN, {"q": {"a": 0.5}}, "query 'q', document 'a': the relevance 0.5 is not an integer"),
        (GOOD_RUN, {"q": {"a": NAN}}, "query 'q', document 'a': the relevance nan is not an integer"),
        (GOOD_RUN, {}, "qrels. are empty"),
        (GOOD_RUN, {"q": {}}, "qrels. are empty"),
        (GOOD_RUN, None, "needs both"),
        (GOOD_RUN, [JUDGED], "or neither"),
        ([ROW, ROW], [JUDGED, JUDGED], "query 'q' is there twice"),
        ([ROW], [], "1 predictions but 0 references"),
        ([ROW], [JUDGED | {"query_id": "p"}], "Row 0 pairs the predictions of query 'q' with the references of 'p'"),
        ([ROW | {"scores": [1.0, 2.0]}], [JUDGED], "query 'q': 1 docids but 2 scores"),
        ([ROW | {"docids": ["a", "a"], "scores": [1.0, 2.0]}], [JUDGED], "query 'q': document 'a' is there twice"),
        ([ROW | {"scores": [NAN]}], [JUDGED], "query 'q', document 'a': the score is NaN"),
        ([{"query_id": "q", "docids": ["a"]}], [JUDGED], "predictions, row 0: no scores"),
    ],
)
def test_bad_input(metric, predictions, references, message):
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=predictions, references=references)


@pytest.mark.parametrize("measure", ["ndcg", "ndcg@0", "ndcg@1000", "recall@101", "map@10", "ndcg@ten", "ndcg_cut.10"])
def test_unknown_measure_is_refused_before_anything_is_lost(metric, measure):
    metric.add_batch(predictions=[ROW], references=[JUDGED])
    with pytest.raises(ValueError, match=f"Unknown measure '{measure}'"):
        metric.compute(measures=["ndcg@10", measure])
    assert metric.compute() == {"ndcg@10": 1.0, "recall@100": 1.0}


def test_a_query_added_in_two_batches_is_refused(metric):
    for _ in range(2):
        metric.add_batch(predictions=[ROW], references=[JUDGED])
    with pytest.raises(ValueError, match="query 'q' is there twice"):
        metric.compute()


def test_registering_twice_and_other_metrics(tmp_path, monkeypatch):
    once = evaluate.loading.evaluation_module_factory
    register_metric()
    assert evaluate.loading.evaluation_module_factory is once
    (tmp_path / "other").mkdir()
    code = MIRACL_NDCG.read_text(encoding="utf-8").replace("MiraclNdcg", "Other")
    (tmp_path / "other" / "other.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert evaluate.load("other", cache_dir=str(tmp_path)).name == "other"
