"""`optical-hf train` on questions of two languages, its results and its card, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hub_server import WRITE_TOKEN
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModel

from optical_hf import OpticalStudent, OpticalTeacher, push_student
from optical_hf.commands import train
from optical_hf.hub.weights import weights_hash

ANSWERED = [
    ("nani aliandika kitabu", "she wrote the book", "it rains today"),
    ("mvua leo", "it rains today", "the book rains"),
    ("kitabu inanyesha", "the book rains", "a book"),
    ("habari hicho", "a book", "who wrote it"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"query": query, "positive": positive, "negatives": [negative]} for query, positive, negative in ANSWERED]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    passages = sorted({positive for _, positive, _ in ANSWERED})
    lines = [json.dumps({"docid": f"d{index}", "text": text}) for index, text in enumerate(passages)]
    (tmp_path / "passages.jsonl").write_text("\n".join(lines))
    (tmp_path / "topics.tsv").write_text("".join(f"q{i}\t{query}\n" for i, (query, _, _) in enumerate(ANSWERED)))
    qrels = [f"q{index} 0 d{passages.index(positive)} 1\n" for index, (_, positive, _) in enumerate(ANSWERED)]
    (tmp_path / "qrels.tsv").write_text("".join(qrels))
    return tmp_path


def arguments(folder: Path, encoder: Path, **changes: object) -> list[str]:
    options = {
        "model": encoder,
        "rows": f"sw-en={folder}/rows.jsonl",
        "topics": f"sw-en={folder}/topics.tsv",
        "passages": f"sw-en={folder}/passages.jsonl",
        "qrels": f"sw-en={folder}/qrels.tsv",
        "output_dir": folder / "out",
        "num_train_epochs": 40,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 4,
        "use_cpu": "true",
        "report_to": "none",
    }
    return [
        str(word) for name, value in (options | changes).items() if value is not None for word in (f"--{name}", value)
    ]


def test_a_retriever_is_trained_measured_and_described(folder, tiny_encoder, capsys, hub):
    train.main(arguments(folder, tiny_encoder, negatives=1, query_prefix="query : "))
    results = json.loads((folder / "out" / "results.json").read_text())
    row = results["languages"]["sw-en"]
    # The four queries of the training find their passages, which they did not before.
    assert row["seen"] and row["queries"] == 4
    assert row["zero_shot"]["ndcg@10"] < 0.95 and row["student"] == {"ndcg@10": 1.0, "pooled_ndcg@10": 1.0}
    assert results["task"] == "retrieval" and results["steps"] == 40 and results["student"] == tiny_encoder.name
    assert results["rows"]["sw-en"]["kept"] == 4 and results["rows"]["sw-en"]["negatives"] == 4
    assert results["row_sources"] == {"sw-en": ["rows.jsonl"]}
    assert results["arguments"]["negatives"] == 1 and results["arguments"]["learning_rate"] == 1e-3
    assert results["weights"] == weights_hash(folder / "out")
    card = ModelCard.load(folder / "out" / "README.md")
    assert card.data.language == ["en", "sw"]
    assert card.data.eval_results[0].metric_value == 1.0
    line = next(line for line in card.text.splitlines() if line.startswith("| `sw-en`"))
    before = row["zero_shot"]
    assert line == (
        f"| `sw-en` | 4 | yes | {before['ndcg@10']:.3f} / {before['pooled_ndcg@10']:.3f} | **1.000 / 1.000** |"
    )
    assert (
        "- **`sw-en`**: 4 pairs of a question and a passage that answers it, and 4 passages that do not, of which the "
        "first 1 of each pair take part, from `rows.jsonl`\n"
    ) in card.text
    assert card.data.eval_results[0].task_name == "Cross-lingual retrieval" and "cross-lingual" in card.data.tags
    assert card.data.eval_results[0].dataset_args["protocol"] == (
        "4 questions in sw-en, a language of the training rows; over all passages, encoded by the model itself"
    )
    # It encodes both sides, so it is no student of another model's passages.
    model = AutoModel.from_pretrained(folder / "out")
    assert isinstance(model, OpticalTeacher) and model.config.query_prefix == "query : "
    assert "The model is in" in capsys.readouterr().out
    push_student(folder / "out", "writer/retriever", token=WRITE_TOKEN)


def test_a_retriever_of_one_language_is_not_called_cross_lingual(folder, tiny_encoder):
    pair = {name: f"sw={folder}/{name}" for name in ("topics", "passages", "qrels")}
    pair = {name: f"{path}.{'jsonl' if name == 'passages' else 'tsv'}" for name, path in pair.items()}
    train.main(arguments(folder, tiny_encoder, **pair, rows=f"sw={folder}/rows.jsonl", num_train_epochs=1))
    card = ModelCard.load(folder / "out" / "README.md")
    assert card.data.eval_results[0].task_name == "Retrieval" and "cross-lingual" not in card.data.tags
    assert card.data.language == ["sw"]


def test_a_card_says_that_its_checkpoint_was_chosen_by_its_figures(folder, tiny_encoder):
    options = {"num_train_epochs": 2, "eval_strategy": "epoch", "save_strategy": "epoch"}
    options |= {"load_best_model_at_end": "true", "metric_for_best_model": "ndcg@10"}
    train.main(arguments(folder, tiny_encoder, **options))
    card = (folder / "out" / "README.md").read_text()
    chosen = "The best checkpoint was chosen by `ndcg@10` on these questions, which flatters their figures."
    assert f" |\n\n{chosen}\n\n## Training\n" in card


def test_with_a_document_model_the_passages_stay_where_they_are(folder, tiny_encoder):
    words = arguments(folder, tiny_encoder, document_model=tiny_encoder, num_train_epochs=2)
    train.main(words)
    results = json.loads((folder / "out" / "results.json").read_text())
    assert results["document_model"] == tiny_encoder.name
    assert isinstance(AutoModel.from_pretrained(folder / "out"), OpticalStudent)
    assert f"and `{tiny_encoder.name}` the passages**" in (folder / "out" / "README.md").read_text()
    # A training that is done is gone on with to no effect.
    trained = load_file(folder / "out" / "model.safetensors")
    start = OpticalStudent.from_checkpoint(tiny_encoder).state_dict()
    assert any(not torch.equal(trained[name], start[name]) for name in trained)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": None}, "--rows is needed"),
        ({"rows": "sw-en"}, "write pair=source"),
        ({"qrels": None}, r"Every pair needs --topics, --passages and --qrels; there are --topics for \['sw-en'\]"),
        ({"alpha": 2}, "--alpha must be a number"),
        ({"alpha": 1}, "there is no monolingual row"),
        ({"divergence_weight": 1}, "no row has them"),
        ({"document_model": "quickstart-typo/"}, "quickstart-typo"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(folder, tiny_encoder, changes, message):
    with pytest.raises((ValueError, OSError), match=message):
        train.main(arguments(folder, tiny_encoder, **changes))
    assert not list(folder.glob("out/*.json"))
