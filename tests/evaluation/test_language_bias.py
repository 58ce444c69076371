"""The spread of a passage's translations in one pooled list, against cases worked out by hand."""

from __future__ import annotations

import copy
import math

import pytest

from optical_hf.evaluation.language_bias import language_bias

# Pooled: en/a .9, sw/b .8, en/b .7, hi/a .6, hi/b .5, hi/c .4, sw/a .3, en/c .2, sw/c .1
RUNS = {
    "en": {"q1": {"a": 0.9, "b": 0.7, "c": 0.2}},
    "sw": {"q1": {"c": 0.1, "b": 0.8, "a": 0.3}},
    "hi": {"q1": {"a": 0.6, "b": 0.5, "c": 0.4}},
}


@pytest.mark.parametrize(
    ("judged", "expected"),
    [
        ({"a": 1}, 6),  # ranks 1, 4, 7
        ({"b": 2}, 3),  # ranks 2, 3, 5
        ({"c": 1}, 3),  # ranks 6, 8, 9
        ({"a": 1, "b": 1, "c": 0}, 4.5),
    ],
)
def test_bias_is_as_computed_by_hand(judged, expected):
    assert language_bias(RUNS, {"q1": judged}) == {"q1": expected}


def test_equal_scores_go_by_id_then_language_descending_in_single_precision():
    nearly = math.nextafter(0.5, 1)  # 0.5 in single precision
    runs = {
        "en": {"q": {"a": nearly, "b": 0.5, "a1": 0.5}},
        "sw": {"q": {"a": 0.5, "b": 0.4, "a1": 0.5}},
    }
    # sw/a1 and en/a1 tie with en/b, sw/a, en/a: b, a1 sw, a1 en, a sw, a en, then sw/b.
    assert language_bias(runs, {"q": {"b": 1}}) == {"q": 5}
    assert language_bias(runs, {"q": {"a": 1}}) == {"q": 1}
    runs["en"]["q"]["a"] = 0.50001
    assert language_bias(runs, {"q": {"a": 1}}) == {"q": 4}  # en/a is first now, sw/a is still fifth


def test_blind_to_language_is_the_number_of_languages_less_one():
    scores = {"q": {f"d{i}": float(i) for i in range(20)}}
    runs = {language: scores for language in ("ar", "en", "hi", "sw")}
    assert language_bias(runs, {"q": {"d3": 1, "d7": 1}}) == {"q": 3}


def test_order_is_the_qrels_and_unjudged_queries_are_left_out():
    runs = {language: {qid: run["q1"] for qid in ("q1", "q2", "q3")} for language, run in RUNS.items()}
    biases = language_bias(runs, {"q3": {"b": 1}, "q2": {"a": 0}, "q1": {"a": 1, "elsewhere": 0}})
    assert list(biases.items()) == [("q3", 3), ("q1", 6)]


def change(runs, language, **scores):
    changed = copy.deepcopy(runs)
    for docid, score in scores.items():
        if score is None:
            del changed[language]["q1"][docid]
        else:
            changed[language]["q1"][docid] = score
    return changed


@pytest.mark.parametrize(
    ("runs", "qrels", "message"),
    [
        ({"en": RUNS["en"]}, {"q1": {"a": 1}}, "needs two or more, not 1"),
        (RUNS, {}, "no query with a relevant passage"),
        (RUNS, {"q1": {"a": 0}}, "no query with a relevant passage"),
        (RUNS | {"sw": {}}, {"q1": {"a": 1}}, "run over 'sw', query 'q1': no ranking"),
        (RUNS, {"q1": {"z": 1}}, "run over 'en', query 'q1': the relevant passage 'z' is not ranked"),
        (change(RUNS, "hi", a=None), {"q1": {"a": 1}}, "run over 'hi', query 'q1': the relevant passage 'a' is not"),
        (change(RUNS, "sw", c=None), {"q1": {"a": 1}}, "passage 'c' is ranked in only one of this language and 'en'"),
        (change(RUNS, "hi", d=0.3), {"q1": {"a": 1}}, "run over 'hi', query 'q1': passage 'd' is ranked in only one"),
        (change(RUNS, "sw", c=math.nan), {"q1": {"a": 1}}, "run over 'sw', query 'q1', passage 'c': the score is NaN"),
    ],
)
def test_incomplete_rankings_are_refused(runs, qrels, message):
    with pytest.raises(ValueError, match=message):
        language_bias(runs, qrels)
