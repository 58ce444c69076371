"""The questions of a distillation by language, and the table of what each language gained."""

from __future__ import annotations

import pytest

from optical_hf.evaluation.gains import format_table, load_questions, parse_language_arguments


@pytest.fixture
def files(tmp_path):
    contents = {
        "passages": '{"docid": "d1", "text": "rain"}\n{"docid": "d2", "text": "sun"}\n',
        "yo": "q1\tojo\nq2\torun\nq3\tile\n",
        "english": "q3\thouse\nq2\tsun\nq1\train\n",
        "qrels": "q1 0 d1 1\nq2 0 d2 1\nq3 0 d1 1\nq9 0 d2 1\n",
        "short": "q1\train\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    return {name: str(tmp_path / name) for name in contents}


def test_questions_and_the_same_in_english(files):
    given = (files["passages"], {"yo": files["yo"]}, {"yo": files["qrels"]})
    [questions] = load_questions(*given, {"yo": files["english"]}, seen=["yo"], max_queries=2)
    assert (questions.language, questions.seen) == ("yo", True)
    assert questions.own.topics == {"q1": "ojo", "q2": "orun"}
    assert questions.english.topics == {"q1": "rain", "q2": "sun"}
    # q3 was cut off and is not judged; q9 is judged, is in no file of topics, and counts.
    assert list(questions.own.qrels) == list(questions.english.qrels) == ["q1", "q2", "q9"]
    assert (questions.own.name, questions.english.name) == ("yo", "yo_in_english")
    [unseen] = load_questions(*given, {}, seen=["sw"])
    assert not unseen.seen and unseen.english is None and len(unseen.own.topics) == 3
    assert unseen.own.passages == {"d1": "rain", "d2": "sun"}


def test_what_is_missing_is_named(files):
    topics, qrels = {"yo": files["yo"]}, {"yo": files["qrels"]}
    with pytest.raises(ValueError, match="short lacks 2 of the questions of .*yo, such as 'q2'"):
        load_questions(files["passages"], topics, qrels, {"yo": files["short"]}, seen=[])
    with pytest.raises(ValueError, match="--topics needs --passages"):
        load_questions(None, topics, qrels, {}, seen=[])
    with pytest.raises(ValueError, match=r"topics are given for \['yo'\], qrels for \[\]"):
        load_questions(files["passages"], topics, {}, {}, seen=[])
    assert load_questions(None, {}, {}, {}, seen=[]) == []


def test_language_arguments():
    assert parse_language_arguments("topics", ["yor=a=b.tsv", "sw=c"]) == {"yo": "a=b.tsv", "sw": "c"}
    with pytest.raises(ValueError, match="--topics yo: write language=path"):
        parse_language_arguments("topics", ["yo"])
    with pytest.raises(ValueError, match="--qrels yor=b: 'yo' is there twice"):
        parse_language_arguments("qrels", ["yo=a", "yor=b"])


def test_table():
    def scores(maxsim, pooled):
        return {"ndcg@10": maxsim, "pooled_ndcg@10": pooled}

    languages = {
        "yo": {
            "seen": True,
            "queries": 10,
            "zero_shot": scores(0.5, 0.4),
            "student": scores(0.6, 0.55),
            "english": scores(0.9, 0.8),
        },
        "sw": {"seen": True, "queries": 30, "zero_shot": scores(0.7, 0.6), "student": scores(0.7, 0.65)},
        "ha": {
            "seen": False,
            "queries": 5,
            "zero_shot": scores(0.8, 0.7),
            "student": scores(0.75, 0.7),
            "english": scores(0.8, 0.8),
        },
    }
    assert format_table(languages).splitlines() == [
        "nDCG@10, MaxSim / pooled",
        "                      queries  zero-shot      student        English        closed",
        "seen in distillation",
        "  yo                  10       0.500 / 0.400  0.600 / 0.550  0.900 / 0.800  +25%",
        "  sw                  30       0.700 / 0.600  0.700 / 0.650  -              -",
        "  mean                40       0.600 / 0.500  0.650 / 0.600  -              -",
        "never seen",
        "  ha                  5        0.800 / 0.700  0.750 / 0.700  0.800 / 0.800  -",
    ]
