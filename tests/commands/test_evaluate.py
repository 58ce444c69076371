"""The evaluation commands, against the same search in memory."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from optical_hf import OpticalTeacher, search
from optical_hf.commands import evaluate, miracl
from optical_hf.metrics.miracl_ndcg.miracl_ndcg import read_run, score_run

EXAMPLES = Path(__file__).parents[2] / "examples"
PASSAGES = {
    "d0": "she wrote the book",
    "d1": "it rains today",
    "d2": "the book rains",
    "d3": "a book",
    "d4": "who wrote it",
}
TOPICS = {"q0": "who wrote the book", "q1": "mvua inanyesha leo", "q2": "kitabu hicho"}
QRELS = {"q0": {"d0": 1, "d4": 1}, "q1": {"d1": 1}, "q2": {"d3": 1, "d2": 0}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A collection, named as a pool of MIRACL is."""
    lines = [json.dumps({"docid": docid, "title": "", "text": text}) for docid, text in PASSAGES.items()]
    (tmp_path / "sw.passages.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "sw.dev.topics.tsv").write_text("".join(f"{qid}\t{text}\n" for qid, text in TOPICS.items()))
    (tmp_path / "sw.dev.qrels.tsv").write_text(
        "".join(f"{qid} 0 {docid} {value}\n" for qid, found in QRELS.items() for docid, value in found.items())
    )
    return tmp_path


@pytest.fixture
def expected(tiny_encoder) -> dict[str, dict]:
    """Runs of the same vectors, in the half precision the index keeps."""
    teacher = OpticalTeacher.from_checkpoint(tiny_encoder)
    queries = teacher.encode(list(TOPICS.values()), "query", pooled="both")
    passages = teacher.encode(list(PASSAGES.values()), "document", pooled="both")
    halves = ([one.half() for one in passages[0]], passages[1].half())
    return {
        name: search(query, passage, list(PASSAGES), list(TOPICS))
        for name, query, passage in zip(("maxsim", "pooled"), queries, halves, strict=True)
    }


def test_evaluate_retrieval(folder, tiny_encoder, expected, capsys):
    files = [f"--{name}={folder}/sw.dev.{name}.tsv" for name in ("topics", "qrels")]
    words = [f"--model={tiny_encoder}", f"--output_dir={folder}/out", f"--passages={folder}/sw.passages.jsonl", *files]
    evaluate.main(words)
    metrics = json.loads((folder / "out" / "metrics.json").read_text())
    for scoring, run in expected.items():
        assert metrics["by_scoring"][scoring] == pytest.approx(score_run(run, QRELS), abs=1e-6)
    assert metrics["ndcg@10"] == metrics["by_scoring"]["maxsim"]["ndcg@10"]
    assert (metrics["num_queries"], metrics["per_query"]["maxsim"].keys()) == (3, QRELS.keys())
    run = read_run(folder / "out" / "run.trec")
    assert {qid: list(found) for qid, found in run.items()} == {q: list(f) for q, f in expected["maxsim"].items()}
    assert f"maxsim   ndcg@10 {metrics['ndcg@10']:.4f}" in capsys.readouterr().out


def test_evaluate_miracl(folder, tiny_encoder, expected, capsys):
    words = [f"--model={tiny_encoder}", f"--output_dir={folder}/out", "--languages=sw", f"--data_dir={folder}"]
    miracl.main([*words, "--protocol=judged"])
    metrics = json.loads((folder / "out" / "metrics.json").read_text())
    assert metrics["protocol"] == "judged pool"
    for scoring, run in expected.items():
        assert metrics["languages"]["sw"][scoring] == pytest.approx(score_run(run, QRELS), abs=1e-6)
    assert metrics["average"]["maxsim"] == {
        name: metrics["languages"]["sw"]["maxsim"][name] for name in score_run({}, QRELS)
    }
    assert (folder / "out" / "run.sw.maxsim.trec").is_file()
    assert "MIRACL, judged pool" in capsys.readouterr().out


def test_two_processes_give_the_files_of_one(folder, tiny_encoder, one_thread):
    words = [f"--model={tiny_encoder}", "--languages=sw", f"--data_dir={folder}", "--protocol=judged"]
    words += ["--shard_size=2", "--first_stage=bm25"]
    launch = ["accelerate", "launch", "--config_file", str(EXAMPLES / "accelerate_configs" / "two_cpu.yaml")]
    subprocess.run(
        [*launch, str(EXAMPLES / "evaluate_miracl.py"), *words, f"--output_dir={folder}/two"],
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    miracl.main([*words, f"--output_dir={folder}/one"])
    written = ["metrics.json", "run.sw.maxsim.trec", "run.sw.pooled.trec", "index/sw/shard-00000.safetensors"]
    for name in written:
        assert (folder / "two" / name).read_bytes() == (folder / "one" / name).read_bytes(), name


def test_only_what_the_first_stage_found_is_ranked(folder, tiny_encoder, expected):
    (folder / "first.sw.trec").write_text("q0 Q0 d4 1 9.0 x\nq0 Q0 d3 2 8.0 x\nq0 Q0 d0 3 7.0 x\nq1 Q0 d2 1 1.0 x\n")
    words = [f"--model={tiny_encoder}", f"--output_dir={folder}/out", "--languages=sw", f"--data_dir={folder}"]
    words += ["--protocol=judged", f"--first_stage={folder}/first.{{language}}.trec", "--depth=2"]
    miracl.main(words)
    run = read_run(folder / "out" / "run.sw.maxsim.trec")
    scores = {qid: {docid: expected["maxsim"][qid][docid] for docid in found} for qid, found in run.items()}
    assert {qid: found.keys() for qid, found in run.items()} == {"q0": {"d3", "d4"}, "q1": {"d2"}}
    for qid, found in run.items():
        assert found == pytest.approx(scores[qid], abs=1e-4)
    metrics = json.loads((folder / "out" / "metrics.json").read_text())
    assert metrics["languages"]["sw"]["maxsim"]["recall@100"] == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert metrics["protocol"].startswith("judged pool, 2 of ")


def test_bm25_as_first_stage_of_plain_files(folder, tiny_encoder, expected, caplog):
    qrels = folder / "sw.dev.qrels.tsv"
    qrels.write_text(qrels.read_text() + "q9 0 d0 1\n")
    files = [f"--{name}={folder}/sw.dev.{name}.tsv" for name in ("topics", "qrels")]
    words = [f"--model={tiny_encoder}", f"--output_dir={folder}/out", f"--passages={folder}/sw.passages.jsonl", *files]
    words += ["--first_stage=bm25", "--depth=2"]
    with pytest.raises(ValueError, match="--first_stage bm25 needs the --query_language"):
        evaluate.main(words)
    words.append("--query_language=swh")
    evaluate.main(words)
    # Shared terms: q0 has "wrote" and "the book" in d0, "who wrote" in d4; no passage holds a word of q1 or q2.
    run = read_run(folder / "out" / "run.trec")
    assert run == {"q0": pytest.approx({docid: expected["maxsim"]["q0"][docid] for docid in ("d0", "d4")}, abs=1e-4)}
    metrics = json.loads((folder / "out" / "metrics.json").read_text())
    assert metrics["ndcg@10"] == pytest.approx(1 / 4)
    assert metrics["protocol"] == "full collection of sw.passages.jsonl, 2 of bm25 reranked"
    assert (metrics["query_language"], metrics["document_language"]) == ("sw", "sw")
    assert "1 of the 4 judged queries are not among the topics (such as 'q9')" in caplog.text

    (folder / "sw.passages.jsonl").write_text(json.dumps({"docid": "d0", "text": "it rains"}) + "\n")
    with pytest.raises(ValueError, match="holds an index of other passages"):
        evaluate.main(words)


def test_a_first_stage_of_other_queries(folder, tiny_encoder):
    (folder / "first.trec").write_text("other Q0 d4 1 9.0 x\n")
    words = [f"--model={tiny_encoder}", f"--output_dir={folder}/out", "--languages=sw", f"--data_dir={folder}"]
    with pytest.raises(ValueError, match="first.trec holds results of none of the 3 queries"):
        miracl.main([*words, "--protocol=judged", f"--first_stage={folder}/first.trec"])
