"""Rows of a cross-encoder's training, its losses as numbers, and what it is measured by."""

from __future__ import annotations

import math

import pytest
import torch

from optical_hf.models.cross_encoders import load_cross_encoder
from optical_hf.training.cross_encoder import (
    CrossEncoderArguments,
    RankedRow,
    cross_encoder_trainer,
    hold_out_queries,
    measure_rows,
    rows_to_rank,
)

ROWS = [
    RankedRow("who wrote it", ["she wrote it", "it rains", "a book"], [2.0, -1.0, 0.5]),
    RankedRow("mvua leo", ["it rains today", "the book", "who wrote"], [1.0, 0.0, -2.0]),
]
PLAIN = {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "warmup_steps": 0}


def arguments(folder, **options):
    return CrossEncoderArguments(str(folder), **{**PLAIN, **options})


@pytest.fixture
def model(tiny_cross_encoder):
    """Without dropout, so that the loss in training is the loss of the logits."""
    return load_cross_encoder(
        tiny_cross_encoder, config_kwargs={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    )


def logits(model, row):
    return torch.tensor(model.predict([(row.query, text) for text in row.passages], activation_fn=torch.nn.Identity()))


def first_loss(model, folder, rows=ROWS, **options):
    trainer = cross_encoder_trainer(
        model, rows, arguments(folder, max_steps=1, logging_steps=1, learning_rate=0.0, **options)
    )
    trainer.train()
    return next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)


def test_listnet_learns_the_scores(model, tmp_path):
    expected = [
        -(torch.tensor(row.scores).softmax(0) * logits(model, row).log_softmax(0)).sum().item() for row in ROWS
    ]
    assert first_loss(model, tmp_path, loss="listnet") == pytest.approx(sum(expected) / 2, abs=1e-3)


def test_listnet_without_scores_learns_which_is_positive(model, tmp_path):
    rows = [RankedRow(row.query, row.passages) for row in ROWS]
    target = torch.tensor([1.0, 0.0, 0.0]).softmax(0)
    expected = [-(target * logits(model, row).log_softmax(0)).sum().item() for row in rows]
    assert first_loss(model, tmp_path, rows, loss="listnet") == pytest.approx(sum(expected) / 2, abs=1e-3)


def test_binary_cross_entropy_of_pairs(model, tmp_path, caplog):
    scores = torch.cat([logits(model, row) for row in ROWS])
    labels = torch.tensor([1.0, 0, 0, 1, 0, 0])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(scores, labels).item()
    assert first_loss(model, tmp_path, loss="bce") == pytest.approx(expected, abs=1e-3)
    assert "The rows' scores are not used by the loss 'bce'; 'listnet' learns them." in caplog.messages


def test_lambda_is_the_default_and_learns(model, tmp_path):
    rows = [RankedRow(row.query, row.passages) for row in ROWS] * 8
    before = measure_rows(model, rows)
    trainer = cross_encoder_trainer(
        model, rows, arguments(tmp_path, num_train_epochs=20, learning_rate=5e-3, logging_steps=1)
    )
    assert type(trainer.loss).__name__ == "LambdaLoss"
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged[-1] < logged[0] / 10
    assert before < 1 and measure_rows(model, rows) == 1.0


def test_the_measure_is_the_rank_of_the_positive_passage(model):
    ranks = []
    for row in ROWS:
        scores = logits(model, row)
        ranks.append(1 + int((scores >= scores[0]).sum()) - 1)
    assert measure_rows(model, ROWS) == pytest.approx(sum(1 / math.log2(rank + 1) for rank in ranks) / 2)
    # Equal scores count against it.
    assert measure_rows(model, [RankedRow("a book", ["the book"] * 3)]) == 0.5


def test_rows_without_negatives_are_counted(caplog):
    alone = RankedRow("a", ["b"])
    assert rows_to_rank([alone, *ROWS]) == (ROWS, {"kept": 2, "without_negatives": 1})
    assert caplog.messages == ["1 of the 3 rows have no negative passage, and are left out."]
    with pytest.raises(ValueError, match="No row is left to train on"):
        rows_to_rank([alone])
    with pytest.raises(ValueError, match="2 of the 3 rows have scores: give them to all rows, or to none"):
        rows_to_rank([*ROWS, RankedRow("q", ["a", "b"])])


def test_a_query_is_held_out_with_all_its_rows():
    rows = [RankedRow(f"q{number % 5}", [f"a{number}", "b"]) for number in range(20)]
    trained, held_out = hold_out_queries(rows, 2, seed=3)
    assert len(held_out) == 8 and len({row.query for row in held_out}) == 2
    assert not {row.query for row in held_out} & {row.query for row in trained} and len(trained) == 12
    assert hold_out_queries(rows, 2, seed=3) == (trained, held_out)
    with pytest.raises(ValueError, match="held_out is 5, and there are 5 queries: none is left"):
        hold_out_queries(rows, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "ranknet"}, "Unknown loss 'ranknet': choose one of lambda, listnet, bce"),
        ({"held_out": 0}, "--held_out must be at least 1, got 0"),
        ({"push_to_hub": True}, "use `optical-hf push` afterwards"),
    ],
)
def test_arguments_that_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, **options)
