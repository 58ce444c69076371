"""Trainers of tiny models on bitext made of a few words."""

from __future__ import annotations

import random

import pytest
import torch
from datasets import Dataset

from optical_hf import OpticalDistillationTrainer, OpticalStudent, OpticalTeacher, OpticalTrainingArguments

ENGLISH = ["the", "a", "who", "wrote", "it", "rains", "today", "book", "this", "she"]
SWAHILI = ["nani", "aliandika", "hicho", "kitabu", "leo", "mvua", "inanyesha", "habari"]
PLAIN = {"retention_share": 0.0, "mark_dropout": 0.0, "warmup_steps": 0, "save_strategy": "no"}
# Four pairs a step, in one process or two.
SGD = {"optim": "sgd", "learning_rate": 0.1, "max_steps": 4}


def make_bitext(count: int, languages: tuple[str, ...] = ("sw",)) -> Dataset:
    chance = random.Random(0)
    rows = [
        {
            "english": " ".join(chance.choices(ENGLISH, k=chance.randint(2, 7))),
            "translation": " ".join(chance.choices(SWAHILI, k=chance.randint(3, 7))),
            "language": languages[index % len(languages)],
        }
        for index in range(count)
    ]
    assert len({row["translation"] for row in rows}) == count
    return Dataset.from_list(rows)


def make_trainer(encoder, folder, train=None, held_out=None, *, student=None, teacher=None, **options):
    names = ("loss", "retrieval_sets", "languages", "callbacks")
    given = {name: options.pop(name) for name in names if name in options}
    defaults = {
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "per_device_train_batch_size": 4,
        "train_sampling_strategy": "random",
    }
    return OpticalDistillationTrainer(
        student or OpticalStudent.from_checkpoint(encoder),
        teacher or OpticalTeacher.from_checkpoint(encoder),
        OpticalTrainingArguments(str(folder), **{**defaults, **PLAIN, **options}),
        train,
        held_out,
        **given,
    )


def record(trainer) -> list[list[str]]:
    # The translations of every batch that the loss sees, in the order of training.
    seen: list[list[str]] = []
    compute_loss = trainer.compute_loss

    def recording(model, inputs, *args, **kwargs):
        seen.append(trainer.data_collator.student.tokenizer.batch_decode(inputs["student_input_ids"], True))
        return compute_loss(model, inputs, *args, **kwargs)

    trainer.compute_loss = recording
    return seen


def weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], atol: float) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=atol, msg=lambda text, name=name: name + text)


def logged(trainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


@pytest.fixture
def build(tiny_encoder, tmp_path):
    """`make_trainer` with the tiny encoder, and the folder `out` of this test."""

    def build(*args, folder="out", **options):
        return make_trainer(tiny_encoder, tmp_path / folder, *args, **options)

    return build
