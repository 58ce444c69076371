"""The MIRACL-Cup pipeline on a few words, stopped and started again."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "miracl_cup.py"
WORDS = {"sw": ["kitabu", "mvua", "leo", "habari", "nani"], "te": ["book", "rains", "today", "she", "who"]}
SMALL = "max_steps: 2\nper_device_train_batch_size: 4\nuse_cpu: true\nreport_to: none\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    for language, words in WORDS.items():
        passages = [f"{one} {other}" for one in words for other in words if one != other]
        lines = [json.dumps({"docid": f"{n}#0", "title": "", "text": text}) for n, text in enumerate(passages)]
        (data / f"{language}.passages.jsonl").write_text("\n".join(lines) + "\n")
        for split, start in (("train", 0), ("dev", 10)):
            chosen = range(start, start + 8)
            (data / f"{language}.{split}.topics.tsv").write_text("".join(f"{n}\t{passages[n]}\n" for n in chosen))
            (data / f"{language}.{split}.qrels.tsv").write_text("".join(f"{n} Q0 {n}#0 1\n" for n in chosen))
        (tmp_path / f"en-{language}.tsv").write_text("".join(f"the {text}\t{text}\n" for text in passages))
    for name, more in {
        "distil": "held_out: 2\nretention_share: 0\n",
        "reranker": "held_out: 2\n",
        "tuning": "",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(SMALL + more)
    return tmp_path


def run(folder: Path, encoder: Path) -> subprocess.CompletedProcess[str]:
    words = ["--languages", *WORDS, "--data", str(folder / "data"), "--teacher", str(encoder), "--depth", "5"]
    words += ["--bitext", *(f"{language}={folder}/en-{language}.tsv" for language in WORDS), "--negatives", "2"]
    for name, option in (("distil", "distil"), ("reranker", "reranker"), ("tuning", "tuning")):
        words += [f"--{option}_config", str(folder / f"{name}.yaml")]
    words += ["--output_dir", str(folder / "cup"), "--query_prefix", "", "--document_prefix", ""]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, str(SCRIPT), *words], env=environment, capture_output=True, text=True)


def test_a_training_killed_at_its_first_checkpoint_begins_anew(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    cup = importlib.import_module("miracl_cup")
    pipeline = cup.Pipeline(cup.CupArguments(str(tmp_path)))
    given: list[tuple[str, ...]] = []
    monkeypatch.setattr(pipeline, "command", lambda done, *words: given.append(words))
    (tmp_path / "tuned" / "checkpoint-25").mkdir(parents=True)
    (tmp_path / "tuned" / "checkpoint-25" / "model.safetensors").write_bytes(b"cut off")
    pipeline.train("tuned", "train", None, "--rows", "sw=rows.jsonl")
    assert given == [("train", "--output_dir", str(tmp_path / "tuned"), "--rows", "sw=rows.jsonl")]


@pytest.mark.slow
def test_the_pipeline_ends_in_a_table_and_goes_on_where_it_stopped(folder, tiny_encoder):
    broken = (folder / "tuning.yaml").read_text()
    (folder / "tuning.yaml").write_text(broken + "alpha: 2\n")
    stopped = run(folder, tiny_encoder)
    assert stopped.returncode == 1 and "`optical-hf train` ended with 1" in stopped.stderr, stopped.stderr[-3000:]
    kept = {path: path.stat().st_mtime_ns for path in (folder / "cup").rglob("*.trec")}
    assert len(kept) == 2 * 5
    (folder / "tuning.yaml").write_text(broken)
    done = run(folder, tiny_encoder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert "optical-hf train " in done.stdout and "optical-hf distill" not in done.stdout
    results = json.loads((folder / "cup" / "results.json").read_text())
    table = (folder / "cup" / "table.md").read_text().splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in table[2:]] == list(results)
    assert list(results) == [
        "bm25",
        "zero-shot",
        "first stage",
        "distilled",
        "cross-encoder",
        "fine-tuned",
        "ensemble",
        "weighted ensemble",
    ]
    # A question is its passage's text, with the words in their order: BM25 finds it among the best two.
    assert 0.63 <= results["bm25"]["mean"] <= 1 and results["first stage"]["gain"] == 0
    for stage in results.values():
        assert stage["mean"] == pytest.approx(sum(stage["ndcg@10"].values()) / 2)
        assert stage["interval"][0] <= stage["mean"] <= stage["interval"][1]
