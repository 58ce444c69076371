"""The evaluation commands, against the same search in memory."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from optical_hf import OpticalTeacher, search
from optical_hf.commands import distill, evaluate, index, miracl
from optical_hf.commands import search as search_command
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


@pytest.mark.parametrize(
    "words, message",
    [
        (["--max_queries=-1"], "--max_queries must be at least 1, got -1"),
        (["--max_queries=0"], "--max_queries must be at least 1, got 0"),
        (["--depth=0"], "--depth must be at least 1, got 0"),
        (["--memory_gb=0"], r"--memory_gb must be a number above 0 and at most 1,000,000 \(GB\), got 0\.0"),
        (["--memory_gb=nan"], r"--memory_gb must be a number above 0 and at most 1,000,000 \(GB\), got nan"),
        (["--batch_size=0"], "--batch_size must be at least 1, got 0"),
        (["--query_length=0"], "--query_length must be at least 1, got 0"),
        (["--document_length=-5"], "--document_length must be at least 1, got -5"),
        (["--shard_size=0"], "--shard_size must be at least 1, got 0"),
        (["--shard_size=99999999999999999999"], "--shard_size must be at most 1,000,000,000,000, got 9+"),
        (["--pool_factor=-2"], "--pool_factor must be at least 1, got -2"),
        (["--dim=0"], "--dim must be at least 1, got 0"),
        (["--single", "--dim=8"], "dim, pool_factor and dtype are for token vectors"),
        (["--k=0"], "--k must be at least 1, got 0"),
    ],
)
def test_numbers_out_of_bounds_are_refused_by_every_command(words, message, folder, monkeypatch):
    """Before anything is read or loaded: neither the model nor the files are there."""
    monkeypatch.setattr(OpticalTeacher, "from_checkpoint", lambda *_: pytest.fail("a model was loaded"))
    common = ["--model=nowhere"]
    evaluation = [*common, f"--output_dir={folder}/out", "--topics=t", "--passages=p", "--qrels=q"]
    calls = {
        evaluate: evaluation,
        miracl: [*common, f"--output_dir={folder}/out", "--languages=sw"],
        index: [*common, "--passages=p", f"--index_dir={folder}/index"],
        search_command: [*common, f"--index_dir={folder}/index", "--query=who"],
        distill: ["--teacher=nowhere", "--bitext=sw=b.tsv", f"--output_dir={folder}/out"],
    }
    name = words[0].partition("=")[0]
    taking = [command for command in calls if name in command.reader().format_help()]
    if name in ("--batch_size", "--query_length", "--document_length"):
        taking = [command for command in taking if command is not distill]  # there its configuration refuses them
    assert taking
    for command in taking:
        with pytest.raises(ValueError, match=message):
            command.main([*calls[command], *words])
    assert not (folder / "out").exists() or not list((folder / "out").iterdir())


def test_an_unknown_place_in_the_name_of_a_run(folder, tiny_encoder):
    words = [f"--model={tiny_encoder}", f"--output_dir={folder}/out", "--languages=sw", f"--data_dir={folder}"]
    with pytest.raises(FileNotFoundError, match=r"run\.\{lang\}\.trec"):
        miracl.main([*words, "--protocol=judged", f"--first_stage={folder}/run.{{lang}}.trec"])


def test_what_is_not_in_the_collection_is_in_the_figures_or_refused(folder, tiny_encoder, caplog):
    qrels = folder / "sw.dev.qrels.tsv"
    qrels.write_text("q0 0 d0 1\nq0 0 en#d4 1\nq1 0 en#d1 1\nq2 0 d3 1\n")
    half = "".join(f"q{number} Q0 {docid} 1 1.5 x\n" for number in range(3) for docid in ("d3", "x"))
    (folder / "run.trec").write_text(half)
    files = [f"--{name}={folder}/sw.dev.{name}.tsv" for name in ("topics", "qrels")]
    files += [f"--passages={folder}/sw.passages.jsonl", f"--first_stage={folder}/run.trec"]
    commands = {
        evaluate: files,
        miracl: ["--languages=sw", f"--data_dir={folder}", "--protocol=judged", f"--first_stage={folder}/run.trec"],
    }
    for command, words in commands.items():
        words = [f"--model={tiny_encoder}", f"--output_dir={folder}/{command.__name__}", *words]
        caplog.clear()
        command.main(words)
        metrics = json.loads((folder / command.__name__ / "metrics.json").read_text())
        missing = metrics["missing"] if command is evaluate else metrics["languages"]["sw"]["missing"]
        assert missing == {"queries": 0, "relevant_judgements": 2, "candidates": 3}
        assert [text for text in caplog.messages if "not there" in text] == [
            "2 of the 4 relevant judgements name a passage that is not there (such as 'en#d4').",
            "3 of the 6 candidates name a passage that is not there (such as 'x').",
        ]
        with pytest.raises(ValueError, match=r"2 of the 4 relevant .*'en#d4'\), which `strict` refuses"):
            command.main([*words, "--strict"])
        (folder / "run.trec").write_text("q0 Q0 x 1 1.0 x\nq1 Q0 x 1 1.0 x\n")
        with pytest.raises(ValueError, match=r"2 of the 2 candidates name a passage that is not there .* do these"):
            command.main(words)
        (folder / "run.trec").write_text(half)
    qrels.write_text("q0 0 en#d0 1\nq1 0 en#d1 1\n")
    for command, words in commands.items():
        with pytest.raises(ValueError, match=r"2 of the 2 relevant judgements .* \(such as 'en#d0'\): do these files"):
            command.main([f"--model={tiny_encoder}", f"--output_dir={folder}/{command.__name__}", *words])


@pytest.fixture
def no_model(monkeypatch):
    monkeypatch.setattr(OpticalTeacher, "from_checkpoint", lambda *_, **__: pytest.fail("a model was loaded"))


def test_a_bad_passage_at_the_end_shows_before_a_model_is_loaded(folder, tiny_encoder, no_model):
    model = f"--model={tiny_encoder}"
    passages = folder / "sw.passages.jsonl"
    passages.write_text(passages.read_text() + '{"docid": "d5"}\n')
    files = [f"--{name}={folder}/sw.dev.{name}.tsv" for name in ("topics", "qrels")]
    for command, words in (
        (evaluate, [f"--output_dir={folder}/out", *files]),
        (index, [f"--index_dir={folder}/index"]),
    ):
        with pytest.raises(ValueError, match=r"sw\.passages\.jsonl, line 6: neither `text` nor `contents`"):
            command.main([model, f"--passages={passages}", *words])
    with pytest.raises(ValueError, match=r"MIRACL sw: .*sw\.passages\.jsonl, line 6"):
        words = ["--languages=sw", f"--data_dir={folder}", "--protocol=judged"]
        miracl.main([model, f"--output_dir={folder}/out", *words])


@pytest.mark.parametrize("name", ["topics", "passages", "qrels", "first_stage"])
@pytest.mark.parametrize("command", [evaluate, miracl, index, search_command])
def test_a_missing_file_shows_before_a_model_is_loaded(command, name, folder, tiny_encoder, no_model):
    given = {
        "model": str(tiny_encoder),
        "output_dir": f"{folder}/out",
        "index_dir": f"{folder}/index",
        "run": f"{folder}/run",
        "languages": "sw",
        "protocol": "judged",
        "data_dir": str(folder),
        "topics": f"{folder}/sw.dev.topics.tsv",
        "passages": f"{folder}/sw.passages.jsonl",
        "qrels": f"{folder}/sw.dev.qrels.tsv",
        name: f"{folder}/gone",
    }
    known = {field.name for kind in command.reader().dataclass_types for field in dataclasses.fields(kind)}
    if name not in known:
        return
    with pytest.raises(FileNotFoundError) as error:
        command.main([f"--{key}={value}" for key, value in given.items() if key in known])
    assert str(error.value) == f"--{name}: there is no file {folder}/gone."


@pytest.mark.parametrize("command", [evaluate, miracl, index])
def test_a_model_that_is_not_there_shows_before_passages_are_read(command, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(f"{command.__name__}.iter_passages", lambda *_: pytest.fail("read"), raising=False)
    monkeypatch.setattr(f"{command.__name__}.load_miracl", lambda *_: pytest.fail("read"), raising=False)
    files = [f"--{name}={folder}/sw.dev.{name}.tsv" for name in ("topics", "qrels")]
    words = {
        evaluate: [f"--output_dir={folder}/out", f"--passages={folder}/sw.passages.jsonl", *files],
        miracl: [f"--output_dir={folder}/out", "--languages=sw"],
        index: [f"--index_dir={folder}/index", f"--passages={folder}/sw.passages.jsonl"],
    }
    for model in (["--model=studnt"], ["--document_model=studnt"]):
        with pytest.raises(FileNotFoundError, match="There is no folder studnt, and the Hub, where a model may have"):
            command.main([*model, *words[command]])


def test_two_evaluations_share_an_index(folder, tiny_encoder):
    """Started at the same time, with as many files to write as 600 passages in threes make."""
    words = [passage for passage in PASSAGES.values() for _ in range(120)]
    (folder / "many.jsonl").write_text(
        "".join(json.dumps({"docid": f"p{i}", "text": f"{text} {i}"}) + "\n" for i, text in enumerate(words))
    )
    (folder / "many.qrels.tsv").write_text("q0 0 p1 1\nq1 0 p130 1\nq2 0 p400 1\n")
    command = [
        *(sys.executable, "-m", "optical_hf.commands.evaluate", f"--model={tiny_encoder}", "--shard_size=3"),
        *(f"--topics={folder}/sw.dev.topics.tsv", f"--qrels={folder}/many.qrels.tsv", "--dim=16", "--batch_size=3"),
        *(f"--passages={folder}/many.jsonl", f"--index_dir={folder}/index"),
    ]
    running = [
        subprocess.Popen(
            [*command, f"--output_dir={folder}/{name}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for name in ("first", "second")
    ]
    printed = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], printed
    runs = [(folder / name / "run.trec").read_bytes() for name in ("first", "second")]
    assert runs[0] == runs[1] and runs[0].count(b"\n") == 300
    names = [path.name for path in (folder / "index").iterdir()]
    assert len([name for name in names if re.fullmatch(r"shard-\d{5}\.(json|safetensors)", name)]) == 400
    assert sorted(name for name in names if not name.startswith("shard-")) == [
        ".lock",
        "index.json",
        "rotation.safetensors",
    ]
