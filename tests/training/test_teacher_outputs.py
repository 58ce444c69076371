from __future__ import annotations

import pytest
import torch

from optical_hf import OpticalTeacher
from optical_hf.models.processing_optical import process_texts
from optical_hf.training.teacher_outputs import TeacherOutputs


@pytest.fixture
def teacher(tiny_encoder):
    return OpticalTeacher.from_checkpoint(tiny_encoder)


@pytest.fixture
def run(teacher, monkeypatch):
    """Counts the texts that the teacher is run on."""
    counts = []
    forward = teacher.forward

    def counted(**batch):
        counts.append(len(batch["input_ids"]))
        return forward(**batch)

    monkeypatch.setattr(teacher, "forward", counted)
    return counts


def check(outputs, teacher, texts):
    batch = process_texts(texts, "query", teacher.tokenizer, teacher.config)
    expected = OpticalTeacher.__call__(teacher, **batch)
    given = outputs([f"query\t{text}" for text in texts], batch)
    mask = batch["scoring_mask"]
    assert torch.equal(given.scoring_mask, mask)
    assert given.token_vectors.shape == expected.token_vectors.shape
    torch.testing.assert_close(given.token_vectors[mask], expected.token_vectors[mask], atol=1e-6, rtol=0)
    torch.testing.assert_close(given.pooled, expected.pooled, atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_text_is_encoded_once(teacher, run):
    outputs = TeacherOutputs(teacher, memory=1.0)
    for texts, encoded in (
        (["it rains", "she wrote the book today"], 2),
        (["it rains", "who"], 1),  # one is known, of a wider batch
        (["who", "who wrote it today", "who wrote it today"], 1),  # one is twice in the batch
        (["she wrote the book today", "it rains"], 0),  # known, of a narrower and a wider batch
    ):
        before = sum(run)
        check(outputs, teacher, texts)
        assert sum(run) - before - len(texts) == encoded  # `check` runs it on all of them as well


@torch.no_grad()
@pytest.mark.parametrize("memory, kept", [(0.0, 0), (6e-7, 1), (1.1e-6, 2)])
def test_no_more_is_kept_than_there_is_memory_for(memory, kept, teacher, run):
    outputs = TeacherOutputs(teacher, memory)
    for text in ("who", "rains"):  # 3 tokens and a pooled vector, of 32 dimensions and 128 bytes each
        check(outputs, teacher, [text])
    run.clear()
    check(outputs, teacher, ["who", "rains"])
    assert sum(run) - 2 == 2 - kept
