"""What the metric lets into trec_eval: grades, scores and ids that would end the process or come back as nonsense."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math

import evaluate
import numpy as np
import pytest
import pytrec_eval
import torch

from optical_hf.data.trec_files import read_qrels, read_run, write_qrels, write_run
from optical_hf.metrics import register_metric
from optical_hf.metrics.miracl_ndcg.miracl_ndcg import MAX_RELEVANCE, score_run

register_metric()

RUN = {"q1": {"d1": 2.0}, "q2": {"d4": 2.0}, "q3": {"d3": 2.0}}
FORMS = ["score_run", "dicts", "files", "rows", "batches", "add", "add rows", "combined"]


def rows(table, values):
    return [{"query_id": qid, "docids": [*row], values: [*row.values()]} for qid, row in table.items()]


def score(form, run, qrels, tmp_path):
    """The scores of a run, by one of the ways into the metric."""
    metric = evaluate.load("miracl_ndcg", cache_dir=str(tmp_path))
    if form == "score_run":
        return score_run(run, qrels)
    if form == "dicts":
        return metric.compute(predictions=run, references=qrels)
    if form == "files":
        write_run(run, tmp_path / "run.trec")
        write_qrels(qrels, tmp_path / "qrels.tsv")
        return metric.compute(predictions=tmp_path / "run.trec", references=tmp_path / "qrels.tsv")
    predictions, references = rows(run, "scores"), rows(qrels, "relevances")
    if form == "rows":
        return metric.compute(predictions=predictions, references=references)
    if form == "batches":
        metric.add_batch(predictions=predictions[:1], references=references[:1])
        metric.add_batch(predictions=predictions[1:], references=references[1:])
    elif form == "add":
        for qid in qrels:
            metric.add(prediction={qid: run[qid]}, reference={qid: qrels[qid]})
    elif form == "add rows":
        for prediction, reference in zip(predictions, references, strict=True):
            metric.add(prediction=prediction, reference=reference)
    else:
        both = evaluate.combine([metric])
        for prediction, reference in zip(predictions, references, strict=True):
            both.add(prediction, reference)
        return both.compute()
    return metric.compute()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("grade", [-1, -2, -3, -100, -3_000_000_000, -(10**30)])
def test_a_grade_below_0_counts_as_0(form, grade, tmp_path):
    qrels = {"q1": {"d1": 1}, "q2": {"d4": grade}, "q3": {"d3": 1}}
    scores = score(form, RUN, qrels, tmp_path)
    assert scores == {"ndcg@10": pytest.approx(2 / 3, abs=1e-12), "recall@100": pytest.approx(2 / 3, abs=1e-12)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("grade", [MAX_RELEVANCE + 1, 2**31 - 1, 2**31, 3_000_000_000, 2**63, 10**30])
def test_a_grade_that_is_too_large_is_named_before_trec_eval_sees_it(form, grade, tmp_path, monkeypatch):
    monkeypatch.setattr(pytrec_eval, "RelevanceEvaluator", None)
    qrels = {"q1": {"d1": 1}, "q2": {"d4": grade}, "q3": {"d3": 1}}
    where = "qrels.tsv, line 2" if form == "files" else "query 'q2', document 'd4'"
    with pytest.raises(ValueError, match=f"{where}: the relevance {grade} is above 1000, the highest there may be"):
        score(form, RUN, qrels, tmp_path)


def test_the_highest_grade_is_the_gain():
    scores = score_run({"q": {"a": 1.0, "b": 2.0}}, {"q": {"a": MAX_RELEVANCE, "b": 1}})
    gained, ideal = 1 + MAX_RELEVANCE / math.log2(3), MAX_RELEVANCE + 1 / math.log2(3)
    assert scores["ndcg@10"] == pytest.approx(gained / ideal, abs=1e-12)


def test_files_keep_the_grades_that_count_as_0(tmp_path):
    qrels = {"q": {"a": -2, "b": -1, "c": 0, "d": 1}}
    write_qrels(qrels, tmp_path / "qrels")
    assert read_qrels(tmp_path / "qrels") == qrels


@pytest.mark.parametrize("form", FORMS)
def test_a_query_may_have_the_id_that_trec_eval_keeps_for_none(form, tmp_path):
    # trec_eval holds "no_query" for a query that it has worked out already, and returned 9e13 for it.
    assert score_run({"q": {"a": 1.0}}, {"q": {"a": 1}})["ndcg@10"] == 1.0
    run, qrels = {"no_query": {"a": 1.0, "b": 2.0}, "1": {"a": 1.0}}, {"no_query": {"a": 1}, "1": {"a": 1}}
    assert score(form, run, qrels, tmp_path)["ndcg@10"] == pytest.approx((1 / math.log2(3) + 1) / 2, abs=1e-12)


BAD_IDS = ["", "a\0b", "a\ud800"]


@pytest.mark.parametrize("form", [form for form in FORMS if form != "files"])
@pytest.mark.parametrize("value", BAD_IDS)
def test_ids_that_trec_eval_cannot_take_are_named(form, value, tmp_path):
    message = f"{value!r}: an id must not be empty, nor have NUL or half a character in it".replace("\\", "\\\\")
    for run, qrels in (
        ({"q": {value: 1.0}}, {"q": {"a": 1}}),
        ({"q": {"a": 1.0}}, {"q": {value: 1}}),
        ({value: {"a": 1.0}}, {value: {"a": 1}}),
    ):
        with pytest.raises(ValueError, match=message):
            score(form, run, qrels, tmp_path)


@pytest.mark.parametrize("line", ["q Q0 a\0 1 2.0 tag", "q\0 Q0 a 1 2.0 tag"])
def test_a_file_with_nul_in_an_id_is_refused_when_it_is_scored(line, tmp_path):
    (tmp_path / "run").write_text(f"{line}\n")
    qrels = {qid: {"a": 1} for qid in read_run(tmp_path / "run")}
    with pytest.raises(ValueError, match="an id must not be empty, nor have NUL"):
        score_run(read_run(tmp_path / "run"), qrels)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "files"])
def test_ids_with_spaces_are_ids_but_not_in_files(form, tmp_path):
    run, qrels = {"first question": {"the page": 1.0, "an": 2.0}}, {"first question": {"the page": 1}}
    assert score(form, run, qrels, tmp_path)["ndcg@10"] == pytest.approx(1 / math.log2(3), abs=1e-12)
    (tmp_path / "qrels").write_text("first question 0 the 1\n")
    with pytest.raises(ValueError, match="qrels, line 1: 5 columns, expected 4"):
        read_qrels(tmp_path / "qrels")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (math.inf, 3e38, 1.0),
        (-math.inf, -3e38, 1 / math.log2(3)),
        # Beyond single precision, in which trec_eval compares, all is infinity: by document id.
        (2e39, 1e39, 1 / math.log2(3)),
        (1e300, math.inf, 1 / math.log2(3)),
        (16777217.0, 16777216.0, 1 / math.log2(3)),
        (np.float32(2.0), np.float64(1.0), 1.0),
        (2, True, 1.0),
        (torch.tensor(2.0), np.array(1.0), 1.0),
    ],
)
def test_scores_that_are_no_plain_floats(first, second, expected):
    scores = score_run({"q": {"a": first, "b": second}}, {"q": {"a": 1}})
    assert scores["ndcg@10"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("form", ["score_run", "dicts", "rows", "batches", "add"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "the score is NaN"),
        (np.float32("nan"), "the score is NaN"),
        (torch.tensor([1.0, 2.0]), r"the score tensor\(\[1., 2.\]\) is not a number"),
        (10**400, "the score 1000.* is not a number"),
        (None, "the score None is not a number"),
        ("1_0", "the score '1_0' is not a number"),
    ],
)
def test_scores_that_are_none(form, value, message, tmp_path):
    with pytest.raises(ValueError, match=f"run, query 'q', document 'b': {message}"):
        score(form, {"q": {"a": 1.0, "b": value}}, {"q": {"a": 1}}, tmp_path)


@pytest.mark.parametrize("form", ["score_run", "dicts", "rows", "batches", "add"])
@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf"), None, "1.0", "1_0", torch.tensor([1, 1]), "²"])
def test_grades_that_are_no_whole_numbers(form, value, tmp_path):
    with pytest.raises(ValueError, match="qrels, query 'q', document 'b': the relevance .* is not an integer"):
        score(form, {"q": {"a": 1.0}}, {"q": {"a": 1, "b": value}}, tmp_path)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("qrels", "q 0 d 1_0", "the relevance '1_0' is not an integer"),
        ("qrels", "q 0 d 1.0", "the relevance '1.0' is not an integer"),
        ("qrels", "q 0 d 1001", "the relevance 1001 is above 1000"),
        ("run", "q Q0 d 1 1_0 t", "the score '1_0' is not a number"),
        ("run", "q Q0 d 1 nan t", "the score is NaN"),
    ],
)
def test_a_bad_number_in_a_file(name, line, message, tmp_path):
    good = "q 0 a 1" if name == "qrels" else "q Q0 a 1 1.0 t"
    (tmp_path / name).write_text(f"{good}\n{line}\n")
    with pytest.raises(ValueError, match=f"{name}, line 2: {message}"):
        (read_qrels if name == "qrels" else read_run)(tmp_path / name)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["qrels.tsv", "qrels.gz"])
def test_files_are_read_as_their_first_bytes_tell(compress, name, tmp_path):
    path = tmp_path / name
    path.write_bytes(compress("\ufeffq 0 a 1\n\ufeffr 0 b -2\r\n".encode()))  # two files, joined
    assert read_qrels(path) == {"q": {"a": 1}, "r": {"b": -2}}


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_file_that_is_cut_off_is_named(compress, tmp_path):
    whole = compress("".join(f"q{number} 0 d{number % 7} 1\n" for number in range(3000)).encode())
    for length in (len(whole) - 1, len(whole) // 2, 10):
        (tmp_path / "qrels").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"qrels, after line \d+: cut off or damaged"):
            read_qrels(tmp_path / "qrels")


ROW = {"query_id": "q", "docids": ["a"], "scores": [1.0]}
JUDGED = {"query_id": "q", "docids": ["a"], "relevances": [1]}


@pytest.mark.parametrize(
    ("prediction", "reference", "message"),
    [
        (None, JUDGED, "needs both the predictions .* two dicts {query_id: {document_id: number}}, two paths"),
        ({"q": {"a": 1.0}}, JUDGED, "qrels, query 'query_id': expected documents as a dict, not str"),
        (["a"], ["a"], r"""predictions, row 0: 'a' is no row like {"query_id": "q1", "docids": \["d1", "d2"\]"""),
        (5, 5, "predictions: give a dict, a path, or a list of rows like .*, not 5"),
        ({"q": 1.0}, {"q": 1}, "run, query 'q': expected documents as a dict, not float"),
        (ROW | {"docids": "a"}, JUDGED, "predictions, query 'q': docids 'a' are no list"),
        (ROW | {"scores": None}, JUDGED, "predictions, query 'q': scores None are no list"),
        (ROW | {"docids": [1]}, JUDGED, "predictions, query 'q', document 1: ids must be strings"),
        (ROW | {"query_id": 1}, JUDGED | {"query_id": 1}, "query 'query_id': expected documents as a dict, not int"),
    ],
)
def test_add_says_what_to_give(prediction, reference, message, tmp_path):
    metric = evaluate.load("miracl_ndcg", cache_dir=str(tmp_path))
    metric.add(prediction={"p": {"a": 1.0}}, reference={"p": {"a": 1}})
    with pytest.raises(ValueError, match=message):
        metric.add(prediction=prediction, reference=reference)
    assert metric.compute()["ndcg@10"] == 1.0  # what was added before is there


@pytest.mark.parametrize(
    ("run", "qrels", "message"),
    [
        ([("q", "a")], {"q": {"a": 1}}, "run: expected queries as a dict, not list"),
        ({"q": {"a": 1.0}}, [("q", "a")], "qrels: expected queries as a dict, not list"),
        ({1: {"a": 1.0}}, {"1": {"a": 1}}, "run, query 1: ids must be strings"),
        ({"1": {"a": 1.0}}, {1: {"a": 1}}, "qrels, query 1: ids must be strings"),
    ],
)
def test_tables_that_are_none(run, qrels, message):
    with pytest.raises(ValueError, match=message):
        score_run(run, qrels)


@pytest.mark.parametrize("value", [2e13, -0.5, float("nan"), 1.0000001])
def test_nothing_outside_of_0_and_1_is_returned(value, monkeypatch):
    class Broken:
        def __init__(self, *_):
            pass

        def evaluate(self, run):
            return {qid: {"ndcg_cut_10": value, "recall_100": 1.0} for qid in run}

    monkeypatch.setattr(pytrec_eval, "RelevanceEvaluator", Broken)
    with pytest.raises(RuntimeError, match="trec_eval scores query 'q' .*, which is not from 0 to 1"):
        score_run({"q": {"a": 1.0}}, {"q": {"a": 1}})
