"""Reranking by vectors and by pairs: the scores, what follows below, and what is refused."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from rerankers import write_cross_encoder
from transformers import BertForSequenceClassification

from optical_hf import OpticalTeacher, maxsim
from optical_hf.data.trec_files import rank
from optical_hf.models.cross_encoders import is_cross_encoder, load_cross_encoder
from optical_hf.retrieval.reranking import rerank

TEXTS = {
    "d0": "she wrote the book",
    "d1": "it rains today",
    "d2": "the book rains",
    "d3": "a book",
    "d4": "who wrote it",
}
TOPICS = {"q0": "who wrote the book", "q1": "mvua inanyesha leo"}
RUN = {"q0": {"d0": 1.0, "d1": 5.0, "d2": 4.0, "d3": 3.0, "d4": 2.0}, "q1": {"d4": 9.0, "d3": 8.0, "d2": 7.0}}


@pytest.fixture(scope="module")
def cross_encoder(tiny_cross_encoder):
    return load_cross_encoder(tiny_cross_encoder)


@pytest.fixture(scope="module")
def logits(tiny_cross_encoder, tiny_tokenizer):
    """The score of a pair, by transformers alone."""
    model = BertForSequenceClassification.from_pretrained(tiny_cross_encoder)

    @torch.no_grad()
    def score(query: str, text: str) -> float:
        return float(model(**tiny_tokenizer([query], [text], return_tensors="pt")).logits)

    return score


def test_a_cross_encoder_gives_the_logits_of_its_pairs(cross_encoder, logits):
    reranked = rerank(RUN, TOPICS, TEXTS.items(), cross_encoder, k=3, batch_size=2)
    best = {qid: rank(found)[:3] for qid, found in RUN.items()}
    for qid, docids in best.items():
        expected = {docid: logits(TOPICS[qid], TEXTS[docid]) for docid in docids}
        assert {docid: reranked[qid][docid] for docid in docids} == pytest.approx(expected, abs=1e-5)
        assert list(reranked[qid])[:3] == rank(expected)
    # What was below stays below, in its order; nothing is lost.
    lowest = min(reranked["q0"][docid] for docid in best["q0"])
    step = max(1.0, abs(lowest)) / 1000
    assert list(reranked["q0"])[3:] == ["d4", "d0"]
    assert reranked["q0"]["d4"] == pytest.approx(lowest - step) and reranked["q0"]["d0"] == lowest - 2 * step
    assert {qid: found.keys() for qid, found in reranked.items()} == {qid: found.keys() for qid, found in RUN.items()}
    assert all(rank(found) == list(found) for found in reranked.values())


@pytest.mark.parametrize("pooled", [False, True])
def test_a_retriever_gives_its_scores(teacher, pooled):
    reranked = rerank(RUN, TOPICS, TEXTS.items(), teacher, k=2, pooled=pooled, batch_size=2)
    queries = teacher.encode_both(list(TOPICS.values()), "query")
    passages = teacher.encode_both(list(TEXTS.values()), "document")
    scores = queries[1] @ passages[1].T if pooled else maxsim(queries[0], passages[0])
    for row, (qid, found) in zip(scores, RUN.items(), strict=True):
        expected = {docid: float(row[list(TEXTS).index(docid)]) for docid in rank(found)[:2]}
        assert {docid: reranked[qid][docid] for docid in expected} == pytest.approx(expected, abs=2e-3)
        assert list(reranked[qid]) == [*rank(expected), *rank(found)[2:]]


def test_passages_by_another_model(teacher, monkeypatch):
    roles = []
    encode = type(teacher)._encode

    def record(model, texts, role, *args, **options):
        roles.append((model is teacher, role))
        return encode(model, texts, role, *args, **options)

    other = type(teacher).from_checkpoint(teacher.config.name_or_path)
    monkeypatch.setattr(type(teacher), "_encode", record)
    rerank(RUN, TOPICS, TEXTS.items(), other, document_model=teacher)
    assert {*roles} == {(False, "query"), (True, "document")}


def test_what_cannot_be_scored_is_counted_and_keeps_its_order(cross_encoder, teacher, caplog):
    run = {**RUN, "q2": {"d0": 1.0, "d3": 2.0}, "q3": {"gone": 3.0}}
    topics = {**TOPICS, "q2": " \u200b ", "q3": "a book"}
    texts = {docid: text for docid, text in TEXTS.items() if docid != "d2"}
    for model in (cross_encoder, teacher):
        caplog.clear()
        reranked = rerank(run, topics, texts.items(), model, k=3)
        assert caplog.messages == [
            "1 of the 4 queries of the run have no text (such as 'q2'): their ranking stays as it is.",
            "3 of the 7 passages to rerank name a passage that is not there (such as 'd2').",
        ]
        assert reranked["q2"] == {"d3": 2.0, "d0": 1.0} and reranked["q3"] == {"gone": 3.0}
        assert {*list(reranked["q0"])[:2]} == {"d1", "d3"} and list(reranked["q0"])[2:] == ["d2", "d4", "d0"]
        assert {*list(reranked["q1"])[:2]} == {"d4", "d3"} and list(reranked["q1"])[2:] == ["d2"]


def test_what_is_refused(cross_encoder, teacher, tmp_path, tiny_bert_config, tiny_tokenizer, monkeypatch):
    with pytest.raises(ValueError, match="The model is a str: neither a teacher or student, nor a CrossEncoder"):
        rerank(RUN, TOPICS, TEXTS.items(), "reranker")
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        rerank(RUN, TOPICS, TEXTS.items(), cross_encoder, k=0)
    with pytest.raises(ValueError, match="A cross-encoder has no vectors"):
        rerank(RUN, TOPICS, TEXTS.items(), cross_encoder, pooled=True)
    for model in (cross_encoder, teacher):
        with pytest.raises(ValueError, match="None of the 2 queries of the run has a text"):
            rerank(RUN, {"q": "text"}, TEXTS.items(), model)
        with pytest.raises(ValueError, match=r"8 of the 8 passages to rerank name .* do these files belong together"):
            rerank(RUN, TOPICS, [("other", "text")], model)
        with pytest.raises(ValueError, match="The run has no results to rerank"):
            rerank({"q0": {}}, TOPICS, TEXTS.items(), model)
    three = write_cross_encoder(tmp_path / "three", tiny_bert_config, tiny_tokenizer, num_labels=3)
    with pytest.raises(ValueError, match="three gives 3 scores a pair, and a ranking needs one"):
        load_cross_encoder(three)
    cross_encoder.model.classifier.bias.data.fill_(float("nan"))
    try:
        with pytest.raises(ValueError, match="Query 'q0', document 'd1': the cross-encoder's score is nan"):
            rerank(RUN, TOPICS, TEXTS.items(), cross_encoder)
    finally:
        cross_encoder.model.classifier.bias.data.fill_(0)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r'pip install "optical-hf\[rerank\]"'):
        load_cross_encoder(three)


def test_cross_encoders_are_told_by_their_files(tiny_cross_encoder, tiny_encoder, cross_encoder, tmp_path):
    assert is_cross_encoder(tiny_cross_encoder) and not is_cross_encoder(tiny_encoder)
    cross_encoder.save_pretrained(str(tmp_path / "saved"))
    assert is_cross_encoder(tmp_path / "saved") and not is_cross_encoder(tmp_path)
    for damaged in ([1], [None], {"a": 1}, "BertForSequenceClassification"):
        (tmp_path / "config.json").write_text(json.dumps({"architectures": damaged}))
        assert not is_cross_encoder(tmp_path)


def test_what_a_killed_reranking_left_is_removed_by_the_next(tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (left := tmp_path / ".optical-hf-rerank.0123456789ab.partial").mkdir()
    (left / "index").mkdir()
    rerank(RUN, TOPICS, TEXTS.items(), OpticalTeacher.from_checkpoint(tiny_encoder))
    assert list(tmp_path.iterdir()) == []
