"""Pushing to a Hub on loopback, what fails on the way, and loading from it in fresh processes."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import torch
from datasets import Dataset
from hub_server import READ_TOKEN, WRITE_TOKEN, HubServer
from huggingface_hub import HfApi, HfFileSystem
from safetensors.torch import save_file

from optical_hf import (
    OpticalDistillationTrainer,
    OpticalStudent,
    OpticalTeacher,
    OpticalTrainingArguments,
    PushError,
    push_metric_space,
    push_student,
)
from optical_hf.commands import distill, push
from optical_hf.hub.weights import weights_hash

ROOT = Path(__file__).parents[2]
REPO = "writer/student"
TEXTS = ["who wrote this book?", "habari leo", "nani aliandika kitabu hicho"]
ENGLISH, SWAHILI = "she wrote this book today", "aliandika kitabu hicho leo"
MODEL_FILES = {
    "config.json",
    "config_sentence_transformers.json",
    "configuration_optical.py",
    "loading_optical.py",
    "model.safetensors",
    "modeling_optical.py",
    "modules.json",
    "multi_vector_optical.py",
    "processing_optical.py",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
CARD = {"README.md", "results.json", ".eval_results/miracl.yaml"}
INTEROP = {"1_Dense/config.json", "1_Dense/model.safetensors"}


def make_trainer(encoder, folder, **options) -> OpticalDistillationTrainer:
    rows = [{"english": ENGLISH, "translation": SWAHILI, "language": "sw"}] * 8
    defaults = {
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "per_device_train_batch_size": 4,
        "max_steps": 2,
        "save_strategy": "steps",
        "save_steps": 1,
        "learning_rate": 1e-2,
        "retention_share": 0.0,
        "hub_model_id": REPO,
    }
    student, teacher = OpticalStudent.from_checkpoint(encoder), OpticalTeacher.from_checkpoint(encoder)
    args = OpticalTrainingArguments(str(folder), **{**defaults, **options})
    return OpticalDistillationTrainer(student, teacher, args, Dataset.from_list(rows))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_encoder) -> Path:
    """The output folder of a training, with all that may lie in one. Do not write to it."""
    folder = tmp_path_factory.mktemp("run") / "student"
    trainer = make_trainer(tiny_encoder, folder)
    trainer.train()
    trainer.save_model()
    for name in (*CARD, *INTEROP, "train.sw.tsv", "optimizer.pt", "runs/events.out", "notes.py", "private.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}" if name.endswith(("json", "yaml")) else f"{ENGLISH}\t{SWAHILI}\n")
    save_file({"linear.weight": torch.ones(2, 2)}, folder / "1_Dense" / "model.safetensors")
    torch.save({"arguments": str(folder)}, folder / "training_args.bin")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# A student\n")
    return folder


@pytest.fixture
def student(trained, tmp_path) -> Path:
    """A student in four files of weights, which may be written to."""
    OpticalStudent.from_pretrained(trained).save_pretrained(tmp_path / "student", max_shard_size="20KB")
    assert len(list((tmp_path / "student").glob("model-*-of-*.safetensors"))) >= 4
    return tmp_path / "student"


def hashes(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def in_fresh_process(code: str, *arguments: object, home: Path, options: tuple[str, ...] = ()) -> str:
    environment = os.environ | {"HF_HOME": str(home), "HF_MODULES_CACHE": str(home / "modules")}
    environment |= {"HF_EVALUATE_CACHE": str(home / "evaluate"), "HF_DATASETS_CACHE": str(home / "datasets")}
    command = [sys.executable, *options, "-c", code, *map(str, arguments)]
    home.mkdir(exist_ok=True)
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


# What lands


def test_push_of_a_students_folder_and_nothing_else_of_it(hub, trained):
    before = hashes(trained)
    commit = push_student(trained, REPO, commit_message="First")
    repository = hub.repositories["models", REPO]
    assert set(repository.files) == {".gitattributes", *MODEL_FILES, *CARD, *INTEROP}
    assert all(repository.files[name] == (trained / name).read_bytes() for name in MODEL_FILES | CARD | INTEROP)
    assert repository.messages == ["First"] and not repository.private
    assert commit.oid == repository.find("main")[0]
    assert hashes(trained) == before


def test_second_push_makes_no_commit(hub, trained):
    first = push_student(trained, REPO)
    sent = hub.count("PUT /lfs/*")
    assert push_student(trained, REPO).oid == first.oid
    assert hub.repositories["models", REPO].messages == ["Upload student"]
    assert hub.count("PUT /lfs/*") == sent == 2


def test_files_of_an_earlier_student_are_not_left_to_load(hub, trained, student):
    push_student(trained, REPO)
    hub.repositories["models", REPO].branches["main"][-1][2]["onnx/model.onnx"] = next(
        iter(hub.repositories["models", REPO].branches["main"][-1][2].values())
    )
    push_student(student, REPO)
    files = set(hub.repositories["models", REPO].files)
    assert not files & (INTEROP | {"model.safetensors"})
    assert {"model.safetensors.index.json", "README.md", "results.json", "onnx/model.onnx"} <= files


def test_private_repository_and_branch(hub, trained):
    push_student(trained, REPO, private=True, revision="v2")
    repository = hub.repositories["models", REPO]
    assert repository.private and set(repository.files) == {".gitattributes"}
    assert repository.find("v2")[1].keys() >= MODEL_FILES
    address = f"{hub.url}/{REPO}/resolve/v2/config.json"
    with pytest.raises(HTTPError, match="401"):
        urlopen(address)
    with urlopen(Request(address, headers={"Authorization": f"Bearer {WRITE_TOKEN}"})) as answer:
        assert answer.read() == (trained / "config.json").read_bytes()


def test_private_push_to_a_public_repository_is_refused(hub, trained):
    hub_files = push_student(trained, REPO).oid
    with pytest.raises(PushError, match=f"{REPO} is there already, and public"):
        push_student(trained, REPO, private=True)
    assert hub.repositories["models", REPO].find("main")[0] == hub_files


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no model.safetensors"),
        ("model-00002-of-0000", "no model-00002-of-0000"),
        ("tokenizer", "no tokenizer"),
    ],
)
def test_folder_without_a_whole_student(hub, student, lost, message):
    for path in student.iterdir():
        if path.name.startswith(lost):
            path.unlink()
    with pytest.raises(FileNotFoundError, match=message):
        push_student(student, REPO)
    assert hub.requests == []


# Loading from the Hub, elsewhere

LOAD = """
import torch
from transformers import AutoModel
for repo in ("writer/student", "writer/sharded"):
    model = AutoModel.from_pretrained(repo, trust_remote_code=BLOCKED)
    torch.save(model.encode(sys.argv[2:], "query"), f"{sys.argv[1]}/{BLOCKED}-{repo.split('/')[1]}.pt")
if BLOCKED:
    assert "optical_hf" not in sys.modules
    model.push_to_hub("writer/again")
"""
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "optical_hf":
            raise ModuleNotFoundError("not installed")
sys.meta_path.insert(0, Block())
try:
    import optical_hf
    raise SystemExit("optical_hf is here")
except ModuleNotFoundError:
    pass
"""


def test_fresh_processes_load_it_with_the_package_and_without(hub, trained, student, tmp_path):
    push_student(trained, REPO, private=True)
    push_student(student, "writer/sharded")
    expected = OpticalStudent.from_pretrained(trained).encode(TEXTS, "query")
    # -I: neither PYTHONPATH nor the working directory, so that only what is installed can be imported.
    with_package = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nimport optical_hf"
    for blocked, start in ((False, with_package), (True, BLOCK)):
        code = f"{start}\nBLOCKED = {blocked}\n{LOAD}"
        in_fresh_process(code, tmp_path, *TEXTS, home=tmp_path / f"home-{blocked}", options=("-I",))
        for name in ("student", "sharded"):
            vectors = torch.load(tmp_path / f"{blocked}-{name}.pt", weights_only=True)
            for one, other in zip(vectors, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    # Without the package, the code that came with the model pushes it as Transformers does.
    assert hub.repositories["models", "writer/again"].files.keys() >= MODEL_FILES


def test_the_metrics_space_loads_without_the_package(hub, tmp_path):
    with pytest.raises(ValueError, match="has to be named miracl_ndcg"):
        push_metric_space("writer/metric")
    push_metric_space("writer/miracl_ndcg")
    push_metric_space("writer/miracl_ndcg")
    space = hub.repositories["spaces", "writer/miracl_ndcg"]
    assert set(space.files) == {".gitattributes", "README.md", "app.py", "miracl_ndcg.py", "requirements.txt"}
    assert len(space.messages) == 1 and space.sdk == "gradio"
    code = """
import evaluate
metric = evaluate.load("writer/miracl_ndcg")
predictions = [{"query_id": "1", "docids": ["a", "b"], "scores": [2.0, 1.0]}]
print(metric.compute(predictions=predictions, references=[{"query_id": "1", "docids": ["b"], "relevances": [1]}]))
"""
    assert "0.6309" in in_fresh_process(BLOCK + code, home=tmp_path / "home", options=("-I",))  # 1 / log2(3)


def test_the_hub_of_these_tests_serves_datasets_by_pattern_and_range(hub):
    api = HfApi()
    api.create_repo("writer/bitext", repo_type="dataset")
    for name in ("a.tsv", "deep/b.tsv", "deep/c.txt"):
        api.upload_file(
            path_or_fileobj=name.encode() * 9, path_in_repo=name, repo_id="writer/bitext", repo_type="dataset"
        )
    files = HfFileSystem(endpoint=hub.url, token=WRITE_TOKEN, skip_instance_cache=True)
    top = "datasets/writer/bitext"
    assert files.glob(f"{top}/**/*.tsv") == [f"{top}/a.tsv", f"{top}/deep/b.tsv"]
    assert files.cat_file(f"{top}/deep/b.tsv", start=10, end=20) == b"deep/b.tsv"


# From models and trainers


def test_push_of_a_model_carries_tokenizer_code_and_the_card_of_its_weights(hub, trained, tiny_encoder):
    model = OpticalStudent.from_pretrained(trained)
    model.push_to_hub(REPO, commit_message="A model")
    repository = hub.repositories["models", REPO]
    assert set(repository.files) == {".gitattributes", *MODEL_FILES, *CARD} and repository.messages == ["A model"]
    assert repository.files["model.safetensors"] == (trained / "model.safetensors").read_bytes()
    with torch.no_grad():
        model.backbone.embeddings.word_embeddings.weight[7] += 1
    model.push_to_hub("writer/changed")
    assert set(hub.repositories["models", "writer/changed"].files) == {".gitattributes", *MODEL_FILES}


def test_checkpoints_are_pushed_while_it_trains_and_the_rest_at_the_end(hub, tiny_encoder, tmp_path):
    options = {"push_to_hub": True, "hub_always_push": True, "hub_private_repo": True, "save_total_limit": 1}
    trainer = make_trainer(tiny_encoder, tmp_path / "out", **options)
    assert hub.repositories["models", REPO].private
    trainer.train()
    repository = hub.repositories["models", REPO]
    assert repository.messages == ["Training in progress, step 1", "Training in progress, step 2"]
    assert all(set(files) == {".gitattributes", *MODEL_FILES} for _, _, files in repository.branches["main"][1:])
    heads = [files["model.safetensors"].oid for _, _, files in repository.branches["main"][1:]]
    assert heads[0] != heads[1]
    last = tmp_path / "out" / "checkpoint-2" / "model.safetensors"
    assert repository.files["model.safetensors"] == last.read_bytes()
    (tmp_path / "out" / "results.json").write_text("{}")
    trainer.push_to_hub("The end")
    assert repository.messages[2:] == ["The end"]
    assert set(repository.files) == {".gitattributes", *MODEL_FILES, "results.json"}
    assert not list((tmp_path / "out").glob(".push-*"))
    assert trainer.push_to_hub("Again", blocking=False).result().oid == repository.find("main")[0]
    assert len(repository.messages) == 3


def test_checkpoint_push_that_fails_does_not_stop_the_training(hub, tiny_encoder, tmp_path, caplog):
    trainer = make_trainer(tiny_encoder, tmp_path / "out", push_to_hub=True, hub_always_push=True)
    hub.fail("POST /api/models/*/commit/*", 500)
    with caplog.at_level(logging.WARNING, "optical_hf"):
        trainer.train()
    assert "checkpoint-1 was not pushed; training goes on. The Hub had an error of its own (500)" in caplog.text
    assert hub.repositories["models", REPO].messages == ["Training in progress, step 2"]
    assert trainer.state.global_step == 2


def test_training_without_a_token_stops_before_it_starts(hub, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PushError, match="There is no Hub token"):
        make_trainer(tiny_encoder, tmp_path / "out", push_to_hub=True)


def test_strategies_that_push_optimizer_states_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'checkpoint', which pushes optimizer states"):
        OpticalTrainingArguments(str(tmp_path), hub_strategy="checkpoint", use_cpu=True)


# What goes wrong


def push_in_vain(hub: HubServer, folder: Path, message: str, **options) -> None:
    before, commits = hashes(folder), {name: one.messages for name, one in hub.repositories.items()}
    with pytest.raises(PushError, match=message) as error:
        push_student(folder, REPO, **options)
    assert error.value.__cause__ is not None and WRITE_TOKEN not in str(error.value)
    assert hashes(folder) == before
    assert all(hub.repositories[name].messages == messages for name, messages in commits.items())


@pytest.mark.parametrize("answer", [500, "drop"])
def test_failure_at_the_third_file_and_only_the_rest_is_sent_again(hub, student, answer):
    shards = len(list(student.glob("model-*.safetensors")))
    hub.fail("PUT /lfs/*", answer, nth=3, times=math.inf)
    message = r"error of its own \(500\)" if answer == 500 else f"connection to {hub.url} failed"
    push_in_vain(hub, student, message)
    assert len(hub.large) == 2 and hub.repositories["models", REPO].messages == []
    hub.faults.clear()
    push_student(student, REPO)
    assert hub.count("PUT /lfs/*") == shards  # each once
    assert hub.repositories["models", REPO].files.keys() >= {path.name for path in student.iterdir()}


@pytest.mark.parametrize("answer", [500, "drop"])
def test_one_failure_of_an_upload_is_got_over(hub, student, answer):
    hub.fail("PUT /lfs/*", answer, nth=2)
    push_student(student, REPO)
    assert len(hub.repositories["models", REPO].messages) == 1


@pytest.mark.parametrize("request_", ["POST /api/repos/create", "POST /api/*/preupload/*", "POST /api/*/commit/*"])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (401, r"does not accept the token \(401\)"),
        (403, r"no right to write to writer/student \(403\)"),
        (413, r"too large \(413\).*max_shard_size"),
        (500, r"error of its own \(500\)"),
        ("drop", "connection to http://127.0.0.1:.* failed"),
    ],
)
def test_every_refusal_is_explained_and_the_next_push_completes(hub, student, request_, answer, message):
    hub.fail(request_, answer, times=math.inf)
    push_in_vain(hub, student, message + ".* push again, and only what is missing is sent")
    uploaded = hub.count("PUT /lfs/*")
    shards = len(list(student.glob("model-*.safetensors")))
    assert uploaded == (shards if "commit" in request_ else 0)
    hub.faults.clear()
    push_student(student, REPO)
    assert hub.count("PUT /lfs/*") == shards
    assert hub.repositories["models", REPO].messages == ["Upload student"]


def test_commit_whose_answer_is_lost_is_not_made_again(hub, student):
    hub.fail("POST /api/models/*/commit/*", "lose")
    with pytest.raises(PushError, match="connection to .* failed"):
        push_student(student, REPO)
    repository = hub.repositories["models", REPO]
    assert len(repository.messages) == 1
    assert push_student(student, REPO).oid == repository.find("main")[0]
    assert len(repository.messages) == 1


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (READ_TOKEN, r"no right to write to writer/student \(403\)"),
        ("hf_invalid", r"does not accept the token \(401\)"),
    ],
)
def test_tokens_that_will_not_do(hub, student, token, message):
    push_in_vain(hub, student, message, token=token)
    push_student(student, REPO)
    push_in_vain(hub, student, message, token=token)


def test_no_token_no_network_and_a_name_that_is_none(hub, student, monkeypatch):
    with pytest.raises(PushError, match="failed .*[Rr]epo id"):
        push_student(student, "writer/a/b")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    push_in_vain(hub, student, "connection to http://127.0.0.1:9 failed")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PushError, match="There is no Hub token"):
        push_student(student, REPO)


# Secrets


def test_configuration_does_not_tell_where_the_encoder_was(tiny_encoder, tmp_path):
    OpticalStudent.from_checkpoint(tiny_encoder).save_pretrained(tmp_path / "student")
    assert str(tiny_encoder.parent) not in (tmp_path / "student" / "config.json").read_text()


@pytest.fixture
def example(monkeypatch, tiny_encoder, tmp_path):
    """Run `optical-hf distill` on one bitext file, and push to the Hub."""
    monkeypatch.setenv("WORLD_SIZE", "1")
    pairs = [(f"{ENGLISH} {word}", f"{SWAHILI} {word}") for word in ("the", "a", "it", "rains", "who", "wrote")]
    (tmp_path / "secret-name.tsv").write_text("".join(f"{english}\t{swahili}\n" for english, swahili in pairs))

    def run(**options: object) -> list[tuple[str, str]]:
        given = {
            "teacher": tiny_encoder,
            "bitext": f"sw={tmp_path}/secret-name.tsv",
            "output_dir": tmp_path / "student",
            "held_out": 2,
            "retention_share": 0,
            "max_steps": 2,
            "save_steps": 1,
            "use_cpu": "true",
            "report_to": "none",
            "push_to_hub": "true",
            "hub_model_id": REPO,
        }
        distill.main([str(word) for name, value in (given | options).items() for word in (f"--{name}", value)])
        return pairs

    return run


def test_nothing_secret_is_ever_pushed(hub, example, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_SECRET", "not-to-be-seen-by-anyone")
    pairs = example(hub_always_push="true", hub_token=WRITE_TOKEN, save_strategy="steps")
    repository = hub.repositories["models", REPO]
    steps = ["Training in progress, step 1", "Training in progress, step 2"]
    assert repository.messages == [*steps, "End of training"]
    assert repository.files.keys() >= MODEL_FILES | {"results.json"}
    OpticalStudent.from_pretrained(tmp_path / "student").push_to_hub("writer/model")
    push_student(tmp_path / "student", "writer/folder")
    secrets = [
        WRITE_TOKEN,
        "not-to-be-seen-by-anyone",
        str(tmp_path),
        str(tiny_encoder.parent),
        str(Path.home()) + "/",
    ]
    secrets += [str(ROOT), *(text for pair in pairs for text in pair)]
    uploaded = list(hub.uploaded())
    assert len(uploaded) > 60 and any(b"OpticalStudent" in content for _, content in uploaded)
    for where, content in uploaded:
        for secret in secrets:
            assert secret.encode() not in content, (where, secret)
    names = {name for one in hub.repositories.values() for name in one.files}
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".tsv", "trainer_state.json"))]


@pytest.mark.parametrize("killed_at", ["write_json", "write_card"])
def test_second_training_into_a_folder_that_is_killed_is_not_pushed(hub, example, tmp_path, monkeypatch, killed_at):
    folder = tmp_path / "student"
    example(push_to_hub="false", save_strategy="no")
    first = json.loads((folder / "results.json").read_text())["weights"]
    push_student(folder, REPO)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(distill, killed_at, killed)
        example(push_to_hub="false", save_strategy="no", learning_rate=1e-2)
    commits = list(hub.repositories["models", REPO].messages)
    with pytest.raises(ValueError, match="was written of other weights than those that lie there now"):
        push_student(folder, REPO)
    assert weights_hash(folder) != first and hub.repositories["models", REPO].messages == commits
    example(push_to_hub="false", save_strategy="no", learning_rate=1e-2)  # to its end, as the error says
    push_student(folder, REPO)
    assert len(hub.repositories["models", REPO].messages) == len(commits) + 1


def test_example_whose_last_push_fails_leaves_a_whole_folder_that_the_other_example_pushes(hub, example, tmp_path):
    hub.fail("POST /api/models/*/commit/*", 500, times=math.inf)
    with pytest.raises(PushError, match="error of its own"):
        example(save_strategy="no")
    hub.faults.clear()
    push.main([str(tmp_path / "student"), REPO])
    assert hub.repositories["models", REPO].files.keys() >= MODEL_FILES | {"results.json"}
    push.main(["--space=writer/miracl_ndcg"])
    assert ("spaces", "writer/miracl_ndcg") in hub.repositories
    for wrong in ([REPO], [str(tmp_path), REPO, "--space"]):
        with pytest.raises(ValueError):
            push.main(wrong)
