"""What a checkpoint's push takes with it, and what a killed one leaves behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from datasets import Dataset
from hub_server import WRITE_TOKEN
from huggingface_hub import HfApi

from optical_hf import OpticalDistillationTrainer, OpticalStudent, OpticalTeacher, OpticalTrainingArguments
from optical_hf.training.hub_pushes import push_checkpoint, remove_stale_pushes

REPO = "writer/student"


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert not psutil.pid_exists(process.pid)
    return process.pid


@pytest.fixture
def student(tiny_encoder, tmp_path) -> Path:
    OpticalStudent.from_checkpoint(tiny_encoder).save_pretrained(tmp_path / "out" / "checkpoint-1")
    return tmp_path / "out" / "checkpoint-1"


def arguments(folder: Path, **options: object) -> OpticalTrainingArguments:
    return OpticalTrainingArguments(str(folder), use_cpu=True, report_to="none", disable_tqdm=True, **options)


def left_behind(folder: Path, pid: int, name: str = "abc_1234") -> Path:
    held = folder / f".push-{pid}-{name}"
    held.mkdir(parents=True)
    (held / "model.safetensors").write_bytes(b"weights")
    return held


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


def test_push_under_way_names_its_process(hub, student, monkeypatch):
    seen: list[str] = []

    def push(folder: str, *_: object, **__: object) -> None:
        seen.append(Path(folder).name)
        remove_stale_pushes(student.parent)
        assert (Path(folder) / "model.safetensors").is_file()

    monkeypatch.setattr("optical_hf.training.hub_pushes.push_student", push)
    push_checkpoint(str(student), REPO, arguments(student.parent), "A checkpoint").result()
    assert len(seen) == 1 and seen[0].startswith(f".push-{os.getpid()}-")
    assert not list(student.parent.glob(".push-*"))


def test_only_what_processes_that_are_gone_left_is_removed(tmp_path, gone):
    ours, parents = left_behind(tmp_path, os.getpid()), left_behind(tmp_path, os.getppid())
    of_gone = left_behind(tmp_path, gone), left_behind(tmp_path, gone, "other")
    # This process was started after that push: the number is another's by now.
    reused = left_behind(tmp_path, os.getpid(), "reused")
    before = psutil.Process().create_time() - 60
    os.utime(reused, (before, before))
    others = [tmp_path / ".push-me", tmp_path / "push-1-a"]
    for folder in others:
        folder.mkdir()
    remove_stale_pushes(tmp_path)
    assert set(tmp_path.iterdir()) == {ours, parents, *others} and not any(folder.exists() for folder in of_gone)
    shutil.rmtree(tmp_path)
    remove_stale_pushes(tmp_path)
    assert not tmp_path.exists()


def test_process_that_nobody_waited_for_is_gone(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    held = left_behind(tmp_path, process.pid)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays in the table of processes
    assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    remove_stale_pushes(tmp_path)
    assert not held.exists()
    process.communicate()


def test_training_starts_by_removing_them(tiny_encoder, tmp_path, gone):
    held, ours = left_behind(tmp_path / "out", gone), left_behind(tmp_path / "out", os.getpid())
    rows = [{"english": "she wrote", "translation": "aliandika", "language": "sw"}] * 2
    models = OpticalStudent.from_checkpoint(tiny_encoder), OpticalTeacher.from_checkpoint(tiny_encoder)
    args = arguments(tmp_path / "out", max_steps=1, save_strategy="no", retention_share=0.0)
    trainer = OpticalDistillationTrainer(*models, args, Dataset.from_list(rows))
    assert held.exists()
    trainer.train()
    assert not held.exists() and ours.exists()
