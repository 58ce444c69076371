"""`optical-hf rerank`, and `optical-hf evaluate` with a cross-encoder: the same scores as the function gives."""

from __future__ import annotations

import json

import pytest

from optical_hf import OpticalTeacher
from optical_hf.data.trec_files import read_run, write_run
from optical_hf.metrics.miracl_ndcg.miracl_ndcg import score_run
from optical_hf.models.cross_encoders import load_cross_encoder
from optical_hf.retrieval.reranking import rerank

TEXTS = {
    "d0": "she wrote the book",
    "d1": "it rains today",
    "d2": "the book rains",
    "d3": "a book",
    "d4": "who wrote it",
}
TOPICS = {"q0": "who wrote the book", "q1": "mvua inanyesha leo"}
QRELS = {"q0": {"d0": 1}, "q1": {"d1": 1}}
RUN = {"q0": {"d0": 1.0, "d1": 5.0, "d2": 4.0}, "q1": {"d4": 9.0, "d1": 8.0, "d2": 7.0}}


@pytest.fixture
def folder(tmp_path):
    lines = [json.dumps({"docid": docid, "text": text}) for docid, text in TEXTS.items()]
    (tmp_path / "passages.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "topics.tsv").write_text("".join(f"{qid}\t{text}\n" for qid, text in TOPICS.items()))
    (tmp_path / "qrels.tsv").write_text("".join(f"{q} Q0 {d} 1\n" for q, judged in QRELS.items() for d in judged))
    write_run(RUN, tmp_path / "run.trec")
    return tmp_path


def test_rerank_writes_what_the_function_gives(call, folder, tiny_cross_encoder, tiny_encoder):
    common = ("rerank", "--run", folder / "run.trec", "--topics", folder / "topics.tsv", "--k=2")
    common += ("--passages", folder / "passages.jsonl", "--output", folder / "out.trec")
    assert call(*common, "--model", tiny_cross_encoder) == f"{folder}/out.trec holds the run of 2 queries.\n"
    model = load_cross_encoder(tiny_cross_encoder)
    assert read_run(folder / "out.trec") == rerank(RUN, TOPICS, TEXTS.items(), model, 2)
    call(*common, "--model", tiny_encoder, "--pooled", "--query_prefix", "query: ")
    teacher = OpticalTeacher.from_checkpoint(tiny_encoder, query_prefix="query: ")
    assert read_run(folder / "out.trec") == rerank(RUN, TOPICS, TEXTS.items(), teacher, 2, pooled=True)


def test_evaluate_measures_a_cross_encoder(call, folder, tiny_cross_encoder):
    out = folder / "out"
    common = ("evaluate", "--model", tiny_cross_encoder, "--topics", folder / "topics.tsv", "--depth=2")
    common += ("--passages", folder / "passages.jsonl", "--qrels", folder / "qrels.tsv", "--output_dir", out)
    assert "is a cross-encoder, which ranks what a --first_stage found: give one" in call(*common)
    printed = call(*common, "--first_stage", folder / "run.trec")
    reranked = rerank(RUN, TOPICS, TEXTS.items(), load_cross_encoder(tiny_cross_encoder), 2)
    expected = {qid: dict(list(found.items())[:2]) for qid, found in reranked.items()}  # of the first stage's two best
    assert read_run(out / "run.trec") == expected
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["by_scoring"] == {"cross_encoder": score_run(expected, QRELS)}
    assert metrics["scoring"] == "cross_encoder" and metrics["ndcg@10"] == score_run(expected, QRELS)["ndcg@10"]
    assert metrics["protocol"] == "full collection of passages.jsonl, 2 of run.trec reranked"
    assert len(metrics["weights"]["model"]) == 32 and "index" not in metrics and not (out / "index").exists()
    assert printed.startswith("cross_encoder  ndcg@10")


def test_bm25_across_languages_is_a_first_stage(call, folder, tiny_cross_encoder):
    out = folder / "out"
    call(
        *("evaluate", "--model", tiny_cross_encoder, "--topics", folder / "topics.tsv", "--output_dir", out),
        *("--passages", folder / "passages.jsonl", "--qrels", folder / "qrels.tsv", "--first_stage", "bm25-char4"),
    )
    run = read_run(out / "run.trec")  # no passage shares four characters with q1
    assert run.keys() == {"q0"} and run["q0"].keys() == {"d0", "d2", "d3", "d4"}
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["protocol"] == "full collection of passages.jsonl, 100 of bm25-char4 reranked"
    assert sorted(path.name for path in out.iterdir()) == ["bm25-char4", "metrics.json", "run.trec"]


def test_bad_input_gives_one_line_and_writes_nothing(call, folder, tiny_cross_encoder, tmp_path):
    common = ("rerank", "--run", folder / "run.trec", "--topics", folder / "topics.tsv")
    common += ("--passages", folder / "passages.jsonl", "--output")
    model = ("--model", tiny_cross_encoder)
    for words, message in {
        (*common, folder / "out.trec", *model, "--k=0"): "--k must be at least 1, got 0",
        (*common, folder / "gone" / "out.trec", *model): f"--output {folder}/gone/out.trec: its folder is not there",
        (*common, folder / "out.trec", *model, "--pooled"): "A cross-encoder has no vectors",
        (*common, folder / "out.trec", *model, "--query_prefix=q"): "--query_prefix is for models that encode",
        (*common, folder / "out.trec", "--model", folder): f"{folder} has no config.json",
        ("index", *model, "--passages", folder / "passages.jsonl", "--index_dir", folder / "i"): (
            f"{tiny_cross_encoder} is a cross-encoder, which scores pairs and encodes nothing"
        ),
    }.items():
        error = call(*words)
        assert error.startswith(f"error: {message}") and "\n" not in error, error
    assert not (folder / "out.trec").exists()
