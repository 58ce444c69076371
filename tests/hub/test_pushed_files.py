"""Which files of a folder are pushed: its own, whole, and those that the student is loaded from."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from optical_hf import OpticalStudent, push_student
from optical_hf.hub.files import card_files, check_whole, pushed_files


@pytest.fixture(scope="module")
def saved(tiny_encoder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "student"
    OpticalStudent.from_checkpoint(tiny_encoder).save_pretrained(folder)
    (folder / "README.md").write_text("# A student\n")
    return folder


@pytest.fixture
def student(saved, tmp_path) -> Path:
    return shutil.copytree(saved, tmp_path / "student")


@pytest.fixture
def sharded(saved, tmp_path) -> Path:
    OpticalStudent.from_pretrained(saved).save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    return tmp_path / "sharded"


LINKED = ["vocab.txt", "added_tokens.json", "loading_optical.py", "configuration_optical.py", "model.safetensors"]
LINKED += ["README.md", "results.json", ".eval_results/mine.yaml", "1_Dense/config.json", "config.json"]


@pytest.mark.parametrize("name", LINKED)
def test_links_out_of_the_folder_are_refused_by_name(hub, student, tmp_path, name):
    outside = tmp_path / "id_rsa"
    outside.write_bytes((student / name).read_bytes() if (student / name).exists() else b"{}")
    (student / name).parent.mkdir(exist_ok=True)
    (student / name).unlink(missing_ok=True)
    (student / name).symlink_to(outside)
    with pytest.raises(ValueError, match=re.escape(f"{student / name} is not a file of this folder")):
        push_student(student, "writer/student")
    (student / name).unlink()
    (student / name).symlink_to(os.path.relpath(outside, (student / name).parent))
    with pytest.raises(ValueError, match=re.escape(f"{student / name} is not a file of this folder")):
        pushed_files(student)
    assert hub.requests == []


def test_linked_folders_and_links_to_other_files_of_the_folder_are_refused(student, tmp_path):
    (student / ".env").write_text("KEY=1")
    (student / "vocab.txt").symlink_to(student / ".env")
    with pytest.raises(ValueError, match=r"vocab.txt is not a file of this folder: a link leads to .*/\.env"):
        pushed_files(student)
    (student / "vocab.txt").unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.yaml").write_text("{}")
    (student / ".eval_results").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"\.eval_results/mine.yaml is not a file of this folder"):
        pushed_files(student)


def test_what_is_no_file_at_all_is_refused(student):
    (student / "README.md").unlink()
    os.mkfifo(student / "README.md")
    with pytest.raises(ValueError, match=r"README.md is not a file of this folder\. Nothing was pushed"):
        pushed_files(student)


def test_card_behind_a_link_does_not_travel_with_its_model(hub, student, tmp_path):
    (tmp_path / "notes.md").write_text("private notes")
    (student / "README.md").unlink()
    (student / "README.md").symlink_to(tmp_path / "notes.md")
    with pytest.raises(ValueError, match=r"README.md is not a file of this folder"):
        OpticalStudent.from_pretrained(student).push_to_hub("writer/student")
    with pytest.raises(ValueError, match=r"README.md is not a file of this folder"):
        card_files(student)
    assert hub.requests == []


@pytest.mark.parametrize("module", ["/etc/hosts.Student", "missing_module.Student"])
def test_code_that_is_not_of_the_folder_is_refused(student, module):
    config = json.loads((student / "config.json").read_text())
    config["auto_map"]["AutoModel"] = module
    (student / "config.json").write_text(json.dumps(config))
    with pytest.raises((ValueError, FileNotFoundError), match=f"has no {Path(module).stem}.py, which a student needs"):
        pushed_files(student)


def test_a_linked_folder_itself_and_a_snapshot_of_the_hubs_cache_are_pushed(hub, student, tmp_path):
    (tmp_path / "link").symlink_to(student)
    files = pushed_files(student)
    assert pushed_files(tmp_path / "link") == files
    repository = tmp_path / "cache" / "models--writer--student"
    snapshot = repository / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for index, name in enumerate(files):
        shutil.copy(student / name, repository / "blobs" / str(index))
        (snapshot / name).symlink_to(Path("../../blobs") / str(index))
    push_student(snapshot, "writer/cached")
    pushed = hub.repositories["models", "writer/cached"].files
    assert {name: pushed[name] for name in files} == {name: (student / name).read_bytes() for name in files}
    # Neither blobs of another repository nor what a blob leads on to are the snapshot's.
    (tmp_path / "blobs").mkdir()
    shutil.copy(student / "README.md", tmp_path / "blobs")
    (snapshot / "results.json").symlink_to(tmp_path / "blobs" / "README.md")
    with pytest.raises(ValueError, match="results.json is not a file of this folder"):
        pushed_files(snapshot)
    (snapshot / "results.json").unlink()
    blob = repository / "blobs" / str(files.index("README.md"))
    blob.unlink()
    blob.symlink_to(student / "README.md")
    with pytest.raises(ValueError, match="README.md is not a file of this folder"):
        pushed_files(snapshot)


def test_weights_that_are_not_loaded_stay(sharded, saved):
    shards = {path.name for path in sharded.glob("model-*.safetensors")}
    (sharded / "model-00009-of-00009.safetensors").write_bytes(b"of an earlier save")
    assert shards == {name for name in pushed_files(sharded) if name.startswith("model-")}
    shutil.copy(saved / "model.safetensors", sharded)
    assert [name for name in pushed_files(sharded) if name.startswith("model.")] == ["model.safetensors"]
    assert not shards & set(pushed_files(sharded))


def broken(folder: Path) -> str:
    with pytest.raises(ValueError) as error:
        check_whole(folder, pushed_files(folder))
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("model.safetensors", 0.5),
        ("model.safetensors", 0.999),
        ("model.safetensors", 0.0),
        ("tokenizer.json", 0.5),
        ("tokenizer_config.json", 0.5),
        ("modules.json", 0.5),
        ("config.json", 0.5),
        ("modeling_optical.py", 0.5),
    ],
)
def test_cut_files_are_refused_by_name(hub, student, name, share):
    content = (student / name).read_bytes()
    cut = content[: int(len(content) * share)]
    (student / name).write_bytes(cut + (b"(" if name.endswith(".py") else b""))
    with pytest.raises(ValueError, match=re.escape(f"{student / name} is cut or broken (")):
        push_student(student, "writer/student")
    assert hub.requests == []


def test_files_of_the_wrong_kind_are_refused_by_name(student):
    (student / "model.safetensors").write_bytes((student / "model.safetensors").read_bytes() + b"\0")
    assert f"{student}/model.safetensors is cut or broken" in broken(student)
    save_file({"weight": torch.ones(1)}, student / "model.safetensors")
    check_whole(student, pushed_files(student))
    (student / ".eval_results").mkdir()
    (student / ".eval_results" / "mine.yaml").write_text("a: [1, hidden")
    assert "mine.yaml is cut or broken" in broken(student) and "hidden" not in broken(student)
    (student / ".eval_results" / "mine.yaml").unlink()
    (student / "README.md").write_bytes("ọjọ́".encode("utf-16"))
    assert "README.md is cut or broken ('utf-8' codec" in broken(student)
    for name, text in (("config.json", "[]"), ("config.json", '{"auto_map": 3}'), ("modules.json", '[{"name": 1}]')):
        before = (student / name).read_text()
        (student / name).write_text(text)
        with pytest.raises(ValueError, match=f"{name} is (not as a student's is|cut or broken)"):
            pushed_files(student)
        (student / name).write_text(before)


def test_shards_are_compared_with_their_index(hub, sharded):
    check_whole(sharded, pushed_files(sharded))
    first, second = sorted(sharded.glob("model-*.safetensors"))[:2]
    whole, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    assert f"{first} is cut or broken" in broken(sharded)
    first.write_bytes(other)
    assert f"{first} is cut or broken (its tensors are not those that model.safetensors.index.json lists)" in broken(
        sharded
    )
    tensors = load_file(second)
    first.write_bytes(whole)
    save_file({**tensors, "more": torch.ones(1)}, second)
    assert f"{second} is cut or broken (its tensors" in broken(sharded)
    second.unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {second.name}"):
        push_student(sharded, "writer/student")
    for text in ("[]", "{}", '{"weight_map": []}'):
        (sharded / "model.safetensors.index.json").write_text(text)
        with pytest.raises(ValueError, match=r"index.json is (cut or )?broken"):
            push_student(sharded, "writer/student")
    assert hub.requests == []
