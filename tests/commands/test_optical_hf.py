"""The command `optical-hf` as it is installed: its subcommands, and what it says of wrong ones."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from optical_hf import OpticalStudent, OpticalTeacher, search
from optical_hf.commands import __main__ as optical
from optical_hf.metrics.miracl_ndcg.miracl_ndcg import read_run

PASSAGES = {"d0": "she wrote the book", "d1": "it rains today", "d2": "the book rains", "d3": "a book"}


@pytest.fixture
def passages(tmp_path):
    path = tmp_path / "passages.jsonl"
    path.write_text("".join(json.dumps({"docid": docid, "text": text}) + "\n" for docid, text in PASSAGES.items()))
    return path


def test_the_installed_command_lists_the_others():
    done = subprocess.run([sys.executable, "-m", "optical_hf.commands"], capture_output=True, text=True, check=True)
    assert all(f"\n  {name} " in done.stdout for name in optical.COMMANDS)
    done = subprocess.run([sys.executable, "-m", "optical_hf.commands.push", "a"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        "error: Give FOLDER and REPO_ID, or --space REPO_ID alone.",
    )


def test_every_command_is_there(call, monkeypatch):
    for name in optical.COMMANDS:
        monkeypatch.setattr(sys, "argv", ["optical-hf", name, "--help"])
        with pytest.raises(SystemExit) as ended:
            optical.main()
        assert ended.value.code is None
    assert call("serach") == "error: there is no command 'serach'; there are " + ", ".join(optical.COMMANDS) + "."


def test_index_and_search_give_the_run_of_a_search_in_memory(call, tiny_encoder, passages, tmp_path):
    index = tmp_path / "index"
    words = ("index", "--model", tiny_encoder, "--passages", passages, "--index_dir", index, "--shard_size", 3)
    assert call(*words) == f"{index} holds 4 passages in 2 files.\n"
    (tmp_path / "topics.tsv").write_text("q0\twho wrote the book\nq1\tit rains\n")
    common = ("search", "--model", tiny_encoder, "--index_dir", index)
    call(*common, "--topics", tmp_path / "topics.tsv", "--run", tmp_path / "run.trec", "--k", 3)
    teacher = OpticalTeacher.from_checkpoint(tiny_encoder)
    queries = teacher.encode_tokens(["who wrote the book", "it rains"], "query")
    vectors = [vector.half() for vector in teacher.encode_tokens(list(PASSAGES.values()), "document")]
    expected = search(queries, vectors, list(PASSAGES), ["q0", "q1"], k=3)
    written = read_run(tmp_path / "run.trec")
    assert {qid: list(row) for qid, row in written.items()} == {qid: list(row) for qid, row in expected.items()}
    for qid, row in expected.items():
        assert written[qid] == pytest.approx(row, abs=1e-5)

    printed = call(*common, "--query", "who wrote the book", "it rains", "--k", 1, "--passages", passages).splitlines()
    best = {qid: next(iter(row.items())) for qid, row in expected.items()}
    assert printed == [
        line
        for text, (docid, score) in zip(("who wrote the book", "it rains"), best.values(), strict=True)
        for line in (text, f"   1  {score:8.4f}  {docid}  {PASSAGES[docid]}")
    ]
    pooled = call(*common, "--query", "it rains", "--pooled")
    assert len(pooled.splitlines()) == 5 and pooled.splitlines()[1].startswith("   1    ")


def test_index_and_search_of_bm25(call, passages, tmp_path):
    (tmp_path / "topics.tsv").write_text("q0\tWróte bòok?\nq1\trains\nq2\thabari\n")
    index = ("index", "--passages", passages, "--index_dir")
    search_in = ("search", "--topics", tmp_path / "topics.tsv", "--run", tmp_path / "run.trec", "--index_dir")
    assert call(*index, tmp_path / "char4", "--model=bm25-char4") == (
        f"{tmp_path}/char4 holds a BM25 index of 4 passages.\n"
    )
    assert call(*search_in, tmp_path / "char4") == f"{tmp_path}/run.trec holds the run of 3 queries.\n"
    run = read_run(tmp_path / "run.trec")
    assert {qid: list(found) for qid, found in run.items()} == {"q0": ["d0", "d3", "d2"], "q1": ["d2", "d1"]}
    call(*index, tmp_path / "words", "--model=bm25", "--language=en")
    printed = call("search", "--index_dir", tmp_path / "words", "--query", "raining", "--k=1")
    assert printed.splitlines()[1].split()[::2] == ["1", "d2"]
    for words, message in {
        (*index, tmp_path / "new", "--model=bm25"): "--language and --model bm25 go together",
        (*index, tmp_path / "new", "--model=bm25-char4", "--language=en"): "--language and --model bm25 go together",
        (*index, tmp_path / "new", "--model=bm25-char4", "--dim=8"): "--model bm25-char4 takes --passages, --language",
        (*index, tmp_path / "char4", "--model=bm25", "--language=en"): f"{tmp_path}/char4 holds an index of character",
        (
            *search_in,
            tmp_path / "char4",
            "--model=e5",
        ): f"{tmp_path}/char4 holds an index of BM25, which",
        (*search_in, tmp_path / "char4", "--pooled"): f"{tmp_path}/char4 holds an index of BM25, which",
    }.items():
        assert call(*words).startswith(f"error: {message}")
    assert not (tmp_path / "new").exists()


def test_search_says_what_is_missing(call, tmp_path):
    assert call("search", "--index_dir", tmp_path) == (
        "error: Give either --query with one or more questions, or --topics with a file of them."
    )
    assert "--topics and --run go together" in call("search", "--index_dir", tmp_path, "--topics", "topics.tsv")
    assert "has no index.json" in call("search", "--index_dir", tmp_path, "--query", "who")
    assert "--document_model is of `optical-hf index`" in call(
        "search", "--index_dir", tmp_path, "--query", "who", "--document_model", "e5"
    )
    assert "--index_dir is needed" in call("index", "--passages", "passages.jsonl")


def test_search_says_what_is_wrong_before_it_loads_a_model(call, tiny_encoder, passages, tmp_path):
    index = tmp_path / "index"
    call("index", "--model", tiny_encoder, "--passages", passages, "--index_dir", index, "--single")
    common = ("search", "--model", "nowhere", "--index_dir", index)
    assert call(*common, "--query", "who") == f"error: {index} holds one vector a passage (--single): give --pooled."
    assert (
        call(*common, "--query", "who", "--passages", "gone.jsonl")
        == "error: --passages: there is no file gone.jsonl."
    )
    (tmp_path / "topics.tsv").write_text("q0\twho wrote the book\n")
    run = tmp_path / "runs" / "run.trec"
    assert call(*common, "--topics", tmp_path / "topics.tsv", "--run", run, "--pooled") == (
        f"error: --run {run}: its folder is not there; make it first."
    )


def test_a_finished_index_is_only_read(call, tiny_encoder, passages, tmp_path, monkeypatch):
    words = ("index", "--model", tiny_encoder, "--passages", passages, "--index_dir", tmp_path / "index")
    first = call(*words)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "index", *(tmp_path / "index").iterdir())}
    monkeypatch.setattr("optical_hf.retrieval.index.shards.FileLock", lambda *_: pytest.fail("written"))
    assert call(*words) == first == f"{tmp_path}/index holds 4 passages in 1 files.\n"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(before) == 5


def test_export_to_other_tools(call, tiny_encoder, tmp_path):
    OpticalStudent.from_checkpoint(tiny_encoder).save_pretrained(tmp_path / "student")
    assert "in the format single_vector" in call(
        "export", tmp_path / "student", tmp_path / "single", "--format", "single_vector"
    )
    assert json.loads((tmp_path / "single" / "modules.json").read_text())[1]["path"] == "1_Pooling"
    pylate = ("export", tmp_path / "student", tmp_path / "pylate", "--format=pylate")
    assert "PyLate scores special tokens" in call(*pylate)
    assert "in the format pylate" in call(*pylate, "--score_special_tokens")
    assert (tmp_path / "pylate" / "1_Dense" / "model.safetensors").is_file()
    assert "argument --format" in call("export", tmp_path / "student", tmp_path / "out", "--format", "gguf")
