"""`optical-hf evaluate` on six passages and three questions, of which one file is not as it should be."""

from __future__ import annotations

import json

import pytest

from optical_hf import OpticalTeacher
from optical_hf.commands import evaluate
from optical_hf.metrics.miracl_ndcg.miracl_ndcg import read_run

PASSAGES = {
    "d1": ("Nile", "The Nile flows north to the Mediterranean."),
    "d2": ("Niger", "The Niger bends through Mali."),
    "d3": ("Kilimanjaro", "The highest mountain of Africa."),
    "d4": ("Lagos", "A large city of Nigeria."),
    "d5": ("Accra", "The capital of Ghana."),
    "d6": ("Timbuktu", "A town of old manuscripts."),
}
TOPICS = "q1\tWhere does the Nile flow?\nq2\tWhich is the capital of Ghana?\nq3\tWhat is the highest mountain?\n"
QRELS = "q1\tQ0\td1\t1\nq2\tQ0\td5\t1\nq3\tQ0\td3\t1\n"


def lines(passages: dict) -> str:
    return "".join(
        json.dumps({"docid": d, "title": title, "text": text}) + "\n" for d, (title, text) in passages.items()
    )


def first_stage(*docids: str) -> str:
    return "".join(
        f"{q} Q0 {d} {rank} {11 - rank} bm25\n" for q in ("q1", "q2", "q3") for rank, d in enumerate(docids, 1)
    )


@pytest.fixture
def run(tmp_path, tiny_encoder):
    """Evaluate with some files replaced; the metrics, and the run that was written."""

    def run(*words: str, **files: str) -> tuple[dict, dict]:
        for name, text in {"passages": lines(PASSAGES), "topics": TOPICS, "qrels": QRELS, **files}.items():
            (tmp_path / name).write_text(text)
        given = [f"--{name}={tmp_path / name}" for name in {"passages", "topics", "qrels", *files}]
        evaluate.main([f"--model={tiny_encoder}", f"--output_dir={tmp_path / 'out'}", *given, *words])
        return json.loads((tmp_path / "out" / "metrics.json").read_text()), read_run(tmp_path / "out" / "run.trec")

    return run


@pytest.fixture
def no_model(monkeypatch):
    monkeypatch.setattr(OpticalTeacher, "from_checkpoint", lambda *_, **__: pytest.fail("a model was loaded"))


def test_first_stage_of_other_ids(run, caplog):
    half = first_stage("en#d1", "d2", "en#d3", "d4", "en#d5", "d6")
    metrics, found = run(first_stage=half)
    assert metrics["missing"] == {"queries": 0, "relevant_judgements": 0, "candidates": 9}
    assert "9 of the 18 candidates name a passage that is not there (such as 'en#d1')." in caplog.messages
    assert {qid: set(row) for qid, row in found.items()} == dict.fromkeys(("q1", "q2", "q3"), {"d2", "d4", "d6"})


def test_first_stage_of_no_known_id(run, no_model):
    none = first_stage(*(f"en#d{number}" for number in range(1, 7)))
    with pytest.raises(
        ValueError, match=r"18 of the 18 candidates name a passage that is not there \(such as 'en#d1'\)"
    ):
        run(first_stage=none)


def test_judgements_of_other_ids(run, caplog, no_model, tmp_path, monkeypatch):
    """Nothing that was judged is there: refused. A judged passage beside them that is there: a warning."""
    others = lines({f"doc-{docid}": passage for docid, passage in PASSAGES.items()})
    lost = "3 of the 3 relevant judgements name a passage that is not there (such as 'd1')"
    with pytest.raises(ValueError) as error:
        run(passages=others)
    assert str(error.value) == f"{lost}: do these files belong together?"
    monkeypatch.undo()
    metrics, _ = run(passages=others, qrels=QRELS + "q1\tQ0\tdoc-d2\t0\n")
    assert metrics["missing"] == {"queries": 0, "relevant_judgements": 3} and f"{lost}." in caplog.messages
    assert (metrics["ndcg@10"], metrics["recall@100"]) == (0.0, 0.0)
    with pytest.raises(ValueError) as error:
        run("--strict", passages=others, qrels=QRELS + "q1\tQ0\tdoc-d2\t0\n")
    assert str(error.value) == f"{lost}, which `strict` refuses."


def test_half_a_character(run, caplog, tmp_path):
    cut = lines(PASSAGES) + '{"docid": "d7", "title": "", "text": "A text cut in the middle of an emoji \\ud83d"}\n'
    _, found = run(passages=cut)
    assert {len(row) for row in found.values()} == {7}
    [said] = [text for text in caplog.messages if "surrogates" in text]
    assert said.endswith(f"became U+FFFD: 1, the first at {tmp_path}/passages, line 7.")


def test_titles_of_null(run, tmp_path):
    _, with_null = run(passages=lines({docid: (None, text) for docid, (_, text) in PASSAGES.items()}))
    (tmp_path / "out").rename(tmp_path / "before")
    _, without = run(passages=lines({docid: ("", text) for docid, (_, text) in PASSAGES.items()}))
    assert with_null == without and len(without["q1"]) == 6


@pytest.mark.parametrize("grade", [-1, -2, -3, -100])
def test_grades_below_0(run, grade):
    """The only judgement of q2 counts as 0; every query finds all six passages."""
    metrics, _ = run(qrels=f"q1\tQ0\td1\t1\nq2\tQ0\td4\t{grade}\nq3\tQ0\td3\t1\n")
    per_query = metrics["per_query"]["maxsim"]
    assert per_query["q2"]["ndcg@10"] == 0.0 and metrics["recall@100"] == pytest.approx(2 / 3)
    assert metrics["ndcg@10"] == pytest.approx((per_query["q1"]["ndcg@10"] + per_query["q3"]["ndcg@10"]) / 3)


def test_a_grade_that_is_too_large(run, no_model):
    with pytest.raises(ValueError, match="qrels, line 1: the relevance 3000000000 is above 1000"):
        run(qrels="q1\tQ0\td1\t3000000000\nq2\tQ0\td5\t3000000000\nq3\tQ0\td3\t1\n")


@pytest.mark.parametrize("words", ["--document_length=1024", "--query_length=100"])
def test_lengths_beyond_the_encoder(run, words):
    name, length = words[2:].split("=")
    with pytest.raises(ValueError, match=f"`{name}` is {length}, but .* reads at most 64 tokens"):
        run(words)
