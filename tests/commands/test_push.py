"""`optical-hf push`: what it pushes, and one line for everything that is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from optical_hf import OpticalStudent
from optical_hf.hub.weights import weights_hash

REPO = "writer/student"


@pytest.fixture(scope="module")
def saved(tiny_encoder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "student"
    OpticalStudent.from_checkpoint(tiny_encoder).save_pretrained(folder)
    (folder / "results.json").write_text(json.dumps({"weights": weights_hash(folder)}))
    return folder


@pytest.fixture
def student(saved, tmp_path) -> Path:
    return shutil.copytree(saved, tmp_path / "student")


@pytest.mark.parametrize(
    "words", ["{0} {1} --private", "--private {0} {1}", "{0} --private {1}", "--revision main --private true {0} {1}"]
)
def test_student_without_a_card_is_given_one_with_its_name(hub, call, student, words):
    assert call("push", *words.format(student, REPO).split()).startswith("Pushed: http://127.0.0.1:")
    repository = hub.repositories["models", REPO]
    assert repository.private and f'AutoModel.from_pretrained("{REPO}")' in repository.files["README.md"].decode()


@pytest.mark.parametrize("card", [None, "By hand.\n"])
@pytest.mark.parametrize(
    ("told", "name", "text"),
    [
        ("{student} has no config.json", "config.json", None),
        ("{student}/config.json is no JSON", "config.json", "{"),
        ("{student} holds a model of type 'bert'", "config.json", '{"model_type": "bert"}'),
        ("{student} has no model.safetensors", "model.safetensors", None),
        ("{student}/model.safetensors is cut or broken", "model.safetensors", "PK"),
        ("{student}/tokenizer.json is cut or broken", "tokenizer.json", "{}"),
        ("{student}/tokenizer_config.json is cut or broken", "tokenizer_config.json", "[]"),
        ("{student} has no modeling_optical.py", "modeling_optical.py", None),
    ],
)
def test_spoilt_folder_gives_one_line(hub, call, student, told, name, text, card):
    if card:
        (student / "README.md").write_text(card)
    (student / name).unlink()
    if text:
        (student / name).write_text(text)
    error = call("push", student, REPO)
    assert error.startswith(f"error: {told.format(student=student)}") and "\n" not in error
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("told", "name", "content"),
    [
        ("results.json is no JSON", "results.json", b"{"),
        ("results.json is not as a run writes it", "results.json", b'{"bitext": 3}'),
        ("README.md is cut or broken", "README.md", b"\xff"),
        ("README.md was written of other weights", "results.json", b'{"weights": "blake2b:%s"}' % (b"0" * 32)),
    ],
)
def test_spoilt_card_gives_one_line(hub, call, student, told, name, content):
    (student / name).write_bytes(content)
    error = call("push", student, REPO)
    assert error.startswith(f"error: {student}/{told}") and "\n" not in error
    assert hub.repositories == {}


def test_no_folder_no_token_and_a_name_that_is_none_give_one_line(hub, call, student, tmp_path, monkeypatch):
    (student / "README.md").write_text("By hand.\n")
    for words, told in {
        (tmp_path / "nothing", REPO): f"{tmp_path}/nothing has no config.json",
        (student / "config.json", REPO): f"{student}/config.json has no config.json",
        (student, "writer/a/b"): "The push to writer/a/b failed (Repo id must",
        (student, "someone/else"): "The token has no right to write to someone/else (403)",
        (student,): "Give FOLDER and REPO_ID",
    }.items():
        error = call("push", *words)
        assert error.startswith(f"error: {told}") and "\n" not in error
    monkeypatch.delenv("HF_TOKEN")
    error = call("push", student, REPO)
    assert error.startswith("error: There is no Hub token. Log in with `hf auth login`") and "\n" not in error
    assert hub.repositories == {}
