"""What a checkpoint's push takes with it, and what a killed one leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset
from hub_server import WRITE_TOKEN
from huggingface_hub import HfApi

from optical_hf import OpticalDistillationTrainer, OpticalStudent, OpticalTeacher, OpticalTrainingArguments
from optical_hf.training.hub_pushes import push_checkpoint

REPO = "writer/student"


@pytest.fixture
def student(tiny_encoder, tmp_path) -> Path:
    OpticalStudent.from_checkpoint(tiny_encoder).save_pretrained(tmp_path / "out" / "checkpoint-1")
    return tmp_path / "out" / "checkpoint-1"


def arguments(folder: Path, **options: object) -> OpticalTrainingArguments:
    return OpticalTrainingArguments(str(folder), use_cpu=True, report_to="none", disable_tqdm=True, **options)


def test_checkpoint_is_pushed_without_card_and_results(hub, student):
    for name in ("README.md", "results.json", ".eval_results/optical_hf.yaml"):
        for folder in (student, student.parent):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("{}")
    HfApi(token=WRITE_TOKEN).create_repo(REPO)
    push_checkpoint(str(student), REPO, arguments(student.parent), "A checkpoint").result()
    files = hub.repositories["models", REPO].files
    assert hub.repositories["models", REPO].messages == ["A checkpoint"]
    assert files["model.safetensors"] == (student / "model.safetensors").read_bytes()
    assert not [name for name in files if name.endswith(("README.md", "results.json", ".yaml"))]


def test_push_under_way_is_left_alone_and_a_killed_one_is_removed_by_the_training(hub, student, monkeypatch):
    seen: list[Path] = []

    def push(folder: Path, *_: object, **__: object) -> None:
        seen.append(folder)
        train(student.parent)
        assert (folder / "model.safetensors").is_file()

    killed = student.parent / ".push.0123456789ab.partial"
    killed.mkdir()
    (killed / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr("optical_hf.training.hub_pushes.push_student", push)
    push_checkpoint(str(student), REPO, arguments(student.parent), "A checkpoint").result()
    assert len(seen) == 1 and not seen[0].exists() and not killed.exists()


def train(folder: Path) -> None:
    rows = [{"english": "she wrote", "translation": "aliandika", "language": "sw"}] * 2
    models = (
        OpticalStudent.from_pretrained(folder / "checkpoint-1"),
        OpticalTeacher.from_pretrained(folder / "checkpoint-1"),
    )
    args = arguments(folder, max_steps=1, save_strategy="no", retention_share=0.0)
    OpticalDistillationTrainer(*models, args, Dataset.from_list(rows)).train()
