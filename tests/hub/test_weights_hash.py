"""What was measured is pushed with the weights it was measured on, or not at all."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from optical_hf import OpticalStudent, push_student
from optical_hf.hub.files import pushed_files
from optical_hf.hub.weights import check_measured, weights_hash

REPO = "writer/student"
RUN = {"README.md", "results.json", ".eval_results/optical_hf.yaml"}


@pytest.fixture(scope="module")
def saved(tiny_encoder, tmp_path_factory) -> Path:
    """A student with the card and the results of its run."""
    folder = tmp_path_factory.mktemp("saved") / "student"
    OpticalStudent.from_checkpoint(tiny_encoder).save_pretrained(folder)
    weights = weights_hash(folder)
    (folder / "results.json").write_text(json.dumps({"weights": weights}))
    (folder / "README.md").write_text(f"| weights | `{weights}` |\n")
    (folder / ".eval_results").mkdir()
    (folder / ".eval_results" / "optical_hf.yaml").write_text(f"# {weights}\n[]\n")
    return folder


@pytest.fixture
def student(saved, tmp_path) -> Path:
    return shutil.copytree(saved, tmp_path / "student")


def train_on(folder: Path) -> None:
    """Leave other weights there, as a run does that is killed before it has written its results."""
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1e-3
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_hash_is_of_the_tensors_and_not_of_their_files(saved, tmp_path):
    weights = weights_hash(saved)
    OpticalStudent.from_pretrained(saved).save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 2
    assert weights_hash(tmp_path / "sharded") == weights
    assert len(weights) == len("blake2b:") + 32


def test_hash_changes_with_value_name_type_and_shape(tmp_path):
    tensors = [
        {"a": torch.zeros(2, 3), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.full((1,), 1.0000001)},
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "c": torch.ones(1)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.tensor(1.0)},
        {"a": torch.zeros(2, 3), "b": torch.ones(1, dtype=torch.bfloat16)},
    ]
    hashes = set()
    for each in tensors:
        save_file(each, tmp_path / "model.safetensors")
        hashes.add(weights_hash(tmp_path))
    assert len(hashes) == len(tensors)


def test_run_whose_training_was_killed_is_not_pushed(hub, student):
    push_student(student, REPO)
    assert hub.repositories["models", REPO].files.keys() >= RUN
    train_on(student)
    requests = list(hub.requests)
    for name in sorted(RUN):
        with pytest.raises(ValueError) as error:
            push_student(student, REPO)
        assert f"{student / name} was written of other weights than those that lie there now" in str(error.value)
        assert "delete README.md, results.json, .eval_results/optical_hf.yaml" in str(error.value)
        (student / name).unlink()
    assert hub.requests == requests
    push_student(student, REPO)
    # Neither do the other weights' card and results stay there beside the new ones.
    files = hub.repositories["models", REPO].files
    assert not files.keys() & RUN and files["model.safetensors"] == (student / "model.safetensors").read_bytes()


def test_card_and_results_on_the_hub_stay_beside_their_weights_and_if_they_name_none(hub, student):
    push_student(student, REPO)
    for name in RUN:
        (student / name).unlink()
    push_student(student, REPO)
    assert hub.repositories["models", REPO].files.keys() >= RUN
    (student / "README.md").write_text("Written by hand.\n")
    push_student(student, REPO)
    (student / "README.md").unlink()
    train_on(student)
    push_student(student, REPO)
    files = hub.repositories["models", REPO].files
    assert files.keys() & RUN == {"README.md"} and files["README.md"] == b"Written by hand.\n"


def test_results_that_name_no_weights_are_pushed_with_a_warning(hub, student, caplog):
    with caplog.at_level(logging.WARNING, "optical_hf"):
        push_student(student, REPO)
        assert caplog.text == ""
        for name in RUN:
            (student / name).write_text("{}")
        push_student(student, REPO)
    assert "not said in .eval_results/optical_hf.yaml, nor in README.md, nor in results.json" in caplog.text
    caplog.clear()
    (student / "results.json").unlink()
    check_measured(student, pushed_files(student), weights_hash(student))
    assert caplog.text == ""  # without results, there is nothing that could be of others


def test_card_goes_along_with_a_model_whose_weights_are_those_measured(hub, student, tmp_path):
    model = OpticalStudent.from_pretrained(student)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    for name in RUN:
        (tmp_path / "sharded" / name).parent.mkdir(exist_ok=True)
        shutil.copy(student / name, tmp_path / "sharded" / name)
    OpticalStudent.from_pretrained(tmp_path / "sharded").push_to_hub(REPO)
    assert hub.repositories["models", REPO].files.keys() >= RUN | {"model.safetensors"}
    train_on(student)
    model = OpticalStudent.from_pretrained(student)
    with pytest.raises(ValueError, match="/optical_hf.yaml was written of other weights") as error:
        model.push_to_hub(REPO)
    assert str(student) in str(error.value)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    model.push_to_hub("writer/changed")
    assert not hub.repositories["models", "writer/changed"].files.keys() & RUN
