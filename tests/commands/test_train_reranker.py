"""`optical-hf train_reranker`: from rows to a folder that is reranked by, has a card, and is pushed."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from huggingface_hub import ModelCard
from sentence_transformers import CrossEncoder

from optical_hf.data.training_rows import load_training_rows
from optical_hf.data.trec_files import read_run
from optical_hf.files import DIGEST, with_digest, write_json
from optical_hf.hub.weights import weights_hash
from optical_hf.training.cross_encoder import RankedRow, hold_out_queries, measure_rows, rows_to_rank
from optical_hf.training.resuming import SETTINGS_FILE

PAIRS = [("who wrote it", "she wrote it"), ("mvua leo", "it rains today"), ("kitabu hicho", "this book")]
REPO = "writer/reranker"


@pytest.fixture
def rows(tmp_path):
    """Twelve rows of three queries and their variants, each with the others' passages as negatives."""
    lines = []
    for number in range(12):
        query, positive = PAIRS[number % 3]
        negatives = [text for _, text in PAIRS if text != positive]
        longer = " ".join([query, *["a"] * (number // 3)])
        lines.append({"query": longer, "positive": positive, "negatives": negatives})
    lines.append({"query": "habari", "positive": "a book", "negatives": []})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_train_rerank_push_and_load(call, rows, tiny_encoder, tmp_path, hub):
    folder = tmp_path / "reranker"
    words = ("--model", tiny_encoder, "--rows", f"en={rows}", "--output_dir", folder, "--held_out=3", "--use_cpu=true")
    printed = call(
        *("train_reranker", *words, "--num_train_epochs=4", "--learning_rate=2e-3", "--seed=1", "--report_to=none"),
        *("--per_device_train_batch_size=9", "--disable_tqdm=true"),
    )
    results = json.loads((folder / "results.json").read_text())
    assert results["rows"] == {"kept": 12, "without_negatives": 1, "held_out": 3, "trained": 9}
    assert (results["loss"], results["steps"], results["sources"]) == ("lambda", 4, ["rows.jsonl"])
    assert results["weights"] == weights_hash(folder)
    start, ndcg = (results["held_out"][name]["ndcg@10"] for name in ("start", "trained"))
    assert f"nDCG@10 on the rows of 3 queries held out: {start:.4f} before, {ndcg:.4f} after" in printed
    loaded = load_training_rows({"en": str(rows)}).dataset
    read, _ = rows_to_rank(RankedRow(row["query"], row["passages"]) for row in loaded)
    assert ndcg == pytest.approx(measure_rows(CrossEncoder(str(folder)), hold_out_queries(read, 3, seed=1)[1]))

    # It reranks as sentence-transformers scores.
    (tmp_path / "topics.tsv").write_text("q0\twho wrote it\n")
    (tmp_path / "passages.jsonl").write_text(
        "".join(json.dumps({"docid": f"d{n}", "text": text}) + "\n" for n, (_, text) in enumerate(PAIRS))
    )
    (tmp_path / "run.trec").write_text("".join(f"q0 Q0 d{n} 1 {n}.0 x\n" for n in range(3)))
    call(
        *("rerank", "--model", folder, "--run", tmp_path / "run.trec", "--topics", tmp_path / "topics.tsv"),
        *("--passages", tmp_path / "passages.jsonl", "--output", tmp_path / "reranked.trec"),
    )
    reranked = read_run(tmp_path / "reranked.trec")["q0"]
    loaded = CrossEncoder(str(folder), activation_fn=torch.nn.Identity())
    scores = loaded.predict([("who wrote it", text) for _, text in PAIRS]).tolist()
    assert reranked == pytest.approx({f"d{n}": score for n, score in enumerate(scores)}, abs=1e-5)

    # Its card says what results.json says, and nothing of this machine.
    card = (folder / "README.md").read_text()
    assert 'CrossEncoder("reranker"' in card and str(tmp_path) not in card
    assert f"| {start:.3f} | **{ndcg:.3f}** |" in card and "9 of rows.jsonl; 3 held out, 1 without" in card
    data = ModelCard(card).data
    assert (data.library_name, data.pipeline_tag) == ("sentence-transformers", "text-ranking")
    assert {"cross-encoder", "reranker"} <= set(data.tags)

    assert call("push", folder, REPO).startswith("Pushed: http://127.0.0.1:")
    pushed = hub.repositories["models", REPO].files
    assert f'CrossEncoder("{REPO}"' in pushed["README.md"].decode()
    assert pushed["results.json"] == (folder / "results.json").read_bytes()
    assert {"config.json", "model.safetensors", "modules.json", "tokenizer.json"} <= pushed.keys()
    assert not [name for name in pushed if "checkpoint" in name or name.endswith((".bin", ".pt"))]
    from_hub = CrossEncoder(REPO, activation_fn=torch.nn.Identity())
    assert from_hub.predict([("who wrote it", text) for _, text in PAIRS]).tolist() == pytest.approx(scores, abs=1e-4)


def test_a_training_that_was_stopped_goes_on_from_its_newest_whole_checkpoint(call, rows, tiny_encoder, tmp_path):
    def words(folder, *more):
        given = ("--model", tiny_encoder, "--rows", f"en={rows}", "--held_out=3", "--use_cpu=true", "--seed=1")
        given += ("--num_train_epochs=3", "--per_device_train_batch_size=9", "--learning_rate=2e-3")
        given += ("--save_strategy=epoch", "--save_total_limit=9", "--report_to=none", "--disable_tqdm=true")
        return ("train_reranker", *given, "--output_dir", folder, *more)

    folder = tmp_path / "reranker"
    error = call(*words(folder, "--resume_from_checkpoint=true"))
    assert error == f"error: `resume_from_checkpoint` is true, and {folder} holds no whole checkpoint."
    call(*words(folder))
    whole = json.loads((folder / "results.json").read_text())
    shutil.rmtree(folder / "checkpoint-3")
    (folder / "checkpoint-2" / "optimizer.pt").unlink()  # as a kill in the middle of its removal leaves it
    kept = folder / "checkpoint-1" / SETTINGS_FILE
    settings = json.loads(kept.read_text())
    settings.pop(DIGEST)
    write_json(kept, with_digest(settings | {"seconds": 7200.0}))
    call(*words(folder, "--resume_from_checkpoint=true"))
    resumed = json.loads((folder / "results.json").read_text())
    assert resumed["weights"] == whole["weights"] and resumed["steps"] == 3
    assert 7200 < resumed["training_seconds"] < 7200 + 600
    error = call(*words(folder, "--resume_from_checkpoint=true", "--loss=bce"))
    assert f"{folder}/checkpoint-3 is of a training with other settings: loss is 'lambda' there, 'bce' here" in error


def test_bad_rows_give_one_line_before_a_model_is_loaded(call, rows, tmp_path):
    good = rows.read_text()
    words = (
        "train_reranker",
        "--model=nowhere",
        "--rows",
        f"en={rows}",
        "--output_dir",
        tmp_path / "out",
        "--use_cpu=true",
    )
    for line, message in {
        "{": f"1 malformed line in the training rows; correct or delete:\n  {rows}:14: not JSON",
        '{"query": "q", "positive": "a", "negatives": ["b"], "scores": [1]}': "1 malformed line",
        '{"query": "q", "positive": "a", "negatives": ["b"], "scores": [1, 2]}': "1 of the 13 rows have scores",
        "": "held_out is 100, and there are 12 queries",
    }.items():
        rows.write_text(good + line + "\n")
        error = call(*words)
        assert error.startswith(f"error: {message}"), error
    assert not list((tmp_path / "out").glob("*.json"))


def test_without_the_extra(call, rows, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    for name in ("optical_hf.commands.train_reranker", "optical_hf.training.cross_encoder"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    error = call("train_reranker", "--help")
    assert error == 'error: Cross-encoders need sentence-transformers: pip install "optical-hf[rerank]".'
