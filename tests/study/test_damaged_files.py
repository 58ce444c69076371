"""A study's folder and files after something changed them: named, and never taken for results."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from optical_hf.files import DIGEST
from optical_hf.models.modeling_optical import OpticalStudent
from optical_hf.study.arm_files import read_arm, read_scores, read_student, read_training
from optical_hf.study.bitext import load_pairs, record_pairs
from optical_hf.study.config import load_study
from optical_hf.study.records import folder_digests, read_record, write_record
from optical_hf.study.report import write_report
from optical_hf.study.results import read_results
from optical_hf.study.run import StudyRun

ARM = "only-ot-1"
CONFIG = {
    "teacher": "./encoder",
    "pairs": 2,
    "bitext": {"sw": "sw.tsv"},
    "rotations": {"only": {"seen": ["sw"], "unseen": ["yo"]}},
    "seeds": [1],
    "methods": {"ot": {"max_steps": 1}},
    "evaluation": {
        "cross": {
            "passages": {"en": "passages.jsonl"},
            "topics": {"sw": "topics.sw.tsv", "yo": "topics.yo.tsv"},
            "english_topics": {"sw": "topics.en.tsv"},
            "qrels": "qrels.tsv",
        }
    },
}


def write_files(folder: Path) -> Path:
    """Write a study's file and all that it names; the encoder is never loaded."""
    (folder / "sw.tsv").write_text("the book\tkitabu\nit rains\tmvua inanyesha\n")
    (folder / "passages.jsonl").write_text('{"docid": "d1", "text": "the book"}\n{"docid": "d2", "text": "rain"}\n')
    for language in ("sw", "yo", "en"):
        (folder / f"topics.{language}.tsv").write_text(f"q1\tbook {language}\nq2\train {language}\n")
    (folder / "qrels.tsv").write_text("q1 0 d1 1\nq2 0 d2 1\n")
    (folder / "encoder").mkdir()
    (folder / "encoder" / "config.json").write_text("{}")
    (folder / "encoder" / "README.md").write_text("An encoder.\n")
    (folder / "study.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder / "study.yaml"


def write_arm(folder: Path, arm: str, shift: float, student: Path | None = None) -> None:
    """Write the files of a complete arm, as a run does."""
    (folder / "arms" / arm).mkdir(parents=True)
    own = {"rotation": None, "method": arm, "seed": None, "seen": [], "steps": 0, "curves": {}}
    if student is not None:
        shutil.copytree(student, folder / "arms" / arm / "student")
        digests = folder_digests(folder / "arms" / arm / "student")
        training = {
            "steps": 1,
            "training_seconds": 2.5,
            "curves": {"step": [1], "loss": [0.5], "plan_entropy": [None]},
        }
        write_record(folder, f"arms/{arm}/training.json", {**training, "resumed_from": [], "student": digests})
        own |= {"rotation": "only", "method": "ot", "seed": 1, "seen": ["sw"], **training}
    scores = {"ndcg@10": [0.25 + shift, 0.5], "recall@100": [1.0, 0.5]}
    scores = {"maxsim": {"per_query": scores}, "pooled": {"per_query": scores}}
    languages = ["sw"] if arm == "ceiling" else ["sw", "yo"]
    pairs = [
        {"query_language": language, "document_language": "en", "qids": ["q1", "q2"], **scores}
        for language in languages
    ]
    cross = {"set": "cross", "protocol": "all of it", "pairs": pairs, "language_bias": None, "seconds": 1.5}
    write_record(folder, f"arms/{arm}/cross.json", cross, indent=None)
    record = {"arm": arm, "sets": ["cross"], "options": {}, "pairs_per_language": 2, "evaluation_seconds": 1.5}
    write_record(folder, f"arms/{arm}/arm.json", {"training_seconds": 0.0, **own, **record})


@pytest.fixture(scope="module")
def student(tmp_path_factory, tiny_encoder) -> Path:
    folder = tmp_path_factory.mktemp("student")
    OpticalStudent.from_checkpoint(tiny_encoder).save_pretrained(folder)
    return folder


@pytest.fixture
def study(tmp_path, student, monkeypatch):
    """A study with three complete arms in `out`, of which nothing was ever encoded."""
    # Nothing is trained, and the reader of arguments would take most of the time.
    monkeypatch.setattr("optical_hf.study.run.training_arguments", lambda *_: SimpleNamespace(world_size=1))
    study = load_study(write_files(tmp_path))
    out = tmp_path / "out"
    for arm, shift in (("zero_shot", 0.0), ("ceiling", 0.5), (ARM, 0.25)):
        write_arm(out, arm, shift, student if arm == ARM else None)
    StudyRun(study, out)
    record_pairs(study, load_pairs(study, []), out)
    return study


def mutate(whole: bytes, rng: random.Random) -> bytes:
    """Flip a bit, cut off the end, leave nothing, or let two parts change places."""
    start, middle, end = sorted(rng.choices(range(len(whole)), k=3))
    kind = rng.choice(["flip", "flip", "cut", "swap", "empty"])
    if kind == "flip":
        return whole[:start] + bytes([whole[start] ^ 1 << rng.randrange(8)]) + whole[start + 1 :]
    if kind == "cut":
        return whole[:start]
    return whole[:start] + whole[middle:end] + whole[start:middle] + whole[end:] if kind == "swap" else b""


def read_all(study, out: Path, pairs=None):
    """Read all that the next run and the report read."""
    StudyRun(study, out)
    record_pairs(study, pairs or load_pairs(study, []), out, write=False)
    results = read_results(out, study.arms, list(study.rotations), list(study.evaluation))
    scores = {key: {cell: array.tolist() for cell, array in arm.scores.items()} for key, arm in results.arms.items()}
    return [arm.record for arm in results.arms.values()], scores, results.protocols, results.queries


NAMES = ["study.json", "bitext.json", "files.json"]
NAMES += [f"arms/{ARM}/{name}.json" for name in ("training", "arm", "cross")]


@pytest.mark.parametrize("name", NAMES)
def test_200_mutations_are_named_or_change_nothing(study, tmp_path, name):
    out = tmp_path / "out"
    path, rng, named = out / name, random.Random(name), 0
    before, pairs = {file: (out / file).read_bytes() for file in NAMES}, load_pairs(study, [])
    expected = read_all(study, out, pairs)
    for _ in range(200):
        path.write_bytes(mutate(before[name], rng))
        try:
            assert read_all(study, out, pairs) == expected
        except ValueError as error:
            named += 1
            assert str(path) in str(error) and ("remove " in str(error) or "Restore " in str(error)), error
        for file, content in before.items():
            (out / file).write_bytes(content)
    assert 150 < named <= 200


@pytest.mark.parametrize("name", NAMES)
def test_mutations_of_files_without_a_digest_are_named_or_read(study, tmp_path, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "out"
    path, rng, pairs = out / name, random.Random(name), load_pairs(study, [])
    content = read_record(out, name)
    assert DIGEST not in content
    whole = json.dumps(content).encode()
    errors = reports = 0
    for _ in range(200):
        path.write_bytes(mutate(whole, rng))
        try:
            read_all(study, out, pairs)
        except ValueError as error:
            errors += 1
            assert str(path) in str(error), error
        else:
            if reports < 10:
                reports += 1
                write_report(study, out)
    assert errors > 100


def test_files_that_changed_places_are_named(study, tmp_path):
    out = tmp_path / "out"
    for name in ("cross.json", "arm.json"):
        first, second = out / "arms" / "zero_shot" / name, out / "arms" / ARM / name
        contents = first.read_bytes(), second.read_bytes()
        first.write_bytes(contents[1])
        second.write_bytes(contents[0])
        with pytest.raises(
            ValueError, match=f"arms/zero_shot/{name} has changed since it was written: remove the arm"
        ):
            read_all(study, out)
        first.write_bytes(contents[0])
        second.write_bytes(contents[1])
    record = read_record(out, f"arms/{ARM}/arm.json")  # 0.1.0 wrote no digest, but the arm's name
    (out / "arms" / "zero_shot" / "arm.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=f"arms/zero_shot/arm.json is of the arm '{ARM}'"):
        read_all(study, out)


def test_a_folder_may_be_moved(study, tmp_path):
    expected = read_all(study, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    assert read_all(study, tmp_path / "moved") == expected


def test_a_trained_arm_without_its_record_is_named(study, tmp_path):
    (tmp_path / "out" / "arms" / ARM / "training.json").unlink()
    with pytest.raises(ValueError, match=f"{ARM}/training.json cannot be read .*: remove the arm's folder and run it"):
        StudyRun(study, tmp_path / "out")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("steps", "1"),
        ("training_seconds", None),
        ("curves", []),
        ("curves", {"step": 1}),
        ("curves", {"step": ["1"]}),
        ("seen", "sw"),
        ("seen", [1]),
        ("sets", [["cross"]]),
        ("seed", "1"),
        ("rotation", 1),
        ("options", None),
    ],
)
def test_parts_of_an_arm_of_another_kind_are_named(study, tmp_path, part, value):
    out, name = tmp_path / "out", f"arms/{ARM}/arm.json"
    write_record(out, name, {**read_record(out, name), part: value})
    with pytest.raises(ValueError, match=rf"{name} has .* as .*'{'step' if value and part == 'curves' else part}'"):
        read_arm(out, ARM)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, 1.5], "has scores that are not numbers from 0 to 1"),
        ([0.5, -0.1], "has scores that are not numbers from 0 to 1"),
        ([0.5, float("inf")], "has scores that are not numbers from 0 to 1"),
        ([0.5, None], "has scores that are not numbers from 0 to 1"),
        ([0.5], "has 2 query ids but not as many scores"),
        ([[0.5], [0.5]], "has 2 query ids but not as many scores"),
        ([0.5, "high"], "lacks a part"),
        ([0.5, [0.5]], "lacks a part"),
        (None, "has 2 query ids but not as many scores"),
    ],
)
def test_scores_of_another_kind_are_named(study, tmp_path, values, message):
    out, name = tmp_path / "out", f"arms/{ARM}/cross.json"
    content = read_record(out, name)
    content["pairs"][0]["maxsim"]["per_query"]["ndcg@10"] = values
    write_record(out, name, content)
    with pytest.raises(ValueError, match=f"{name} {message}"):
        read_scores(out, ARM, "cross")


def test_damaged_students_are_named_by_file(study, tmp_path):
    out, rng = tmp_path / "out", random.Random(0)
    folder = out / "arms" / ARM / "student"
    assert read_student(out, ARM).num_parameters() > 1000
    names = read_training(out, ARM)["student"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names.keys()
    for name in names:
        whole = (folder / name).read_bytes()
        for _ in range(5):
            changed = mutate(whole, rng)
            (folder / name).write_bytes(changed)
            if changed != whole:
                with pytest.raises(
                    ValueError, match=f"student/{name} has changed since it was trained: remove the arm"
                ):
                    read_student(out, ARM)
        (folder / name).unlink()
        with pytest.raises(ValueError, match=f"student/{name} is missing: remove the arm's folder and run it again"):
            read_student(out, ARM)
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("length", [0, 100, -1])
def test_damaged_students_of_0_1_0_are_named(study, tmp_path, name, length):
    out = tmp_path / "out"
    training = read_record(out, f"arms/{ARM}/training.json")
    del training["student"]
    (out / "arms" / ARM / "training.json").write_text(json.dumps(training))
    path = out / "arms" / ARM / "student" / name
    path.write_bytes(path.read_bytes().rstrip()[:length])
    with pytest.raises(ValueError, match=f"arms/{ARM}/student cannot be loaded .*: remove the arm's folder"):
        read_student(out, ARM)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("qrels.tsv", "d1 1", "d1 2"),
        ("topics.sw.tsv", "book", "books"),
        ("topics.en.tsv", "book", "books"),
        ("passages.jsonl", "rain", "rains"),
        ("encoder/config.json", "{}", "{ }"),
    ],
)
def test_a_file_that_changed_between_two_arms_is_named(study, tmp_path, name, before, after):
    shutil.rmtree(tmp_path / "out" / "arms" / ARM)
    StudyRun(study, tmp_path / "out", ["zero_shot"])
    path = tmp_path / name
    whole = path.read_text()
    path.write_text(whole.replace(before, after))
    with pytest.raises(ValueError, match=f"out holds a study with other files: (./)?{name} changed since its arms"):
        StudyRun(load_study(tmp_path / "study.yaml"), tmp_path / "out", [ARM])
    path.write_text(whole)
    StudyRun(load_study(tmp_path / "study.yaml"), tmp_path / "out", [ARM])


def test_files_may_change_that_no_arm_was_measured_on(study, tmp_path):
    (tmp_path / "encoder" / "README.md").write_text("The same encoder.\n")
    StudyRun(study, tmp_path / "out")
    (tmp_path / "qrels.new.tsv").write_text("q1 0 d1 1\n")
    new = {"cross": CONFIG["evaluation"]["cross"], "new": CONFIG["evaluation"]["cross"] | {"qrels": "qrels.new.tsv"}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(CONFIG | {"evaluation": new}))
    files = {}
    for text in ("q1 0 d1 1\n", "q1 0 d1 1\nq2 0 d2 1\n"):
        (tmp_path / "qrels.new.tsv").write_text(text)
        StudyRun(load_study(tmp_path / "study.yaml"), tmp_path / "out", ["zero_shot"])
        files[text] = read_record(tmp_path / "out", "files.json")["files"]
    first, second = files.values()
    assert {name for name in first if first[name] != second[name]} == {"qrels.new.tsv"}
    for path in tmp_path.glob("out/arms/*/cross.json"):
        path.unlink()
    (tmp_path / "qrels.tsv").write_text("q1 0 d2 1\n")
    StudyRun(load_study(tmp_path / "study.yaml"), tmp_path / "out", ["zero_shot"])
