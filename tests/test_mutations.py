"""Whatever happens to a file that the product wrote: reading it gives an error that names it, or the same as before.

Some changes no check can see, and the answer may be another one after them; each is named where it is let pass.
Code is no data, and metrics.json, the report of a study, its figures and an export to ONNX are read by people and by
other tools, not by this package. The files of a study are in `study/test_damaged_files.py`, and every bit of an index
in `retrieval/test_shards.py`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open
from trainers import make_bitext, make_trainer
from transformers import Trainer

from optical_hf import OpticalStudent, build_index, export_pylate, export_single_vector, push_student
from optical_hf.commands.evaluate import reader as evaluate_reader
from optical_hf.evaluation.in_memory import encode_passages
from optical_hf.files import with_digest, write_json
from optical_hf.hub.weights import weights_hash
from optical_hf.retrieval.bm25 import BM25Index
from optical_hf.retrieval.index.exact import PassageIndex
from optical_hf.study.config import load_study
from optical_hf.training.model_card import name_card, write_card
from optical_hf.training.resuming import SETTINGS_FILE

TEXTS = ["who wrote the book ?", "nani aliandika hicho kitabu", "it rains today"]
PASSAGES = {f"d{number}": text for number, text in enumerate([*TEXTS, "the mvua", "she wrote it"])}
KINDS = ["flip", "flip", "cut", "empty", "swap", "list", "value", "junk"]


def mutate(path: Path, rng: random.Random, kind: str) -> None:
    """Damage a file, or let it change places with another of its folder."""
    whole = path.read_bytes()
    others = [other for other in sorted(path.parent.iterdir()) if other.is_file() and other != path]
    is_object = path.suffix == ".json" and whole.startswith(b"{")
    if kind == "flip":
        changed = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
    elif kind == "cut":
        path.write_bytes(whole[: rng.randrange(len(whole))])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "swap" and others:
        other = rng.choice(others)
        path.write_bytes(other.read_bytes())
        other.write_bytes(whole)
    elif kind == "value" and is_object:
        content = json.loads(whole)
        content[rng.choice(list(content))] = rng.choice([None, [], {}, "text", 5, -1.5, True])
        path.write_text(json.dumps(content))
    elif kind == "junk":
        path.write_bytes(whole + rng.randbytes(rng.randint(1, 2000)))
    else:
        path.write_text(rng.choice(["[]", "null", "5", '{"a": null}', "[" * 100_000, "\n", "no JSON: at all"]))


@dataclass(frozen=True)
class Written:
    """What the product wrote, who reads it, and how many mutations of it are tried.

    `unseen` says of a damaged file whether another answer is let pass.
    """

    folder: Path
    read: Callable[[Path], Any]
    count: int
    unseen: Callable[[Path], bool] = lambda path: False
    without: tuple[str, ...] = ()

    def files(self) -> list[Path]:
        return [
            path
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.suffix not in self.without and path.name != ".lock"
        ]


def vectors(folder: Path) -> list[Any]:
    model = OpticalStudent.from_checkpoint(folder)
    both = [model.encode_both(TEXTS, role) for role in ("query", "document")]
    return [[vector.tolist() for vector in tokens] + pooled.tolist() for tokens, pooled in both]


def well_formed(path: Path) -> bool:
    """JSON that is still JSON, and weights of which a number is another: without a record, nobody can tell them."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt"):
                return True
        json.loads(path.read_text())
        return True
    except Exception:
        return False


@pytest.fixture(scope="module")
def model(tiny_encoder) -> OpticalStudent:
    return OpticalStudent.from_checkpoint(
        tiny_encoder,
        projection_dim=8,
        query_prefix="query: ",
        document_prefix="passage: ",
        score_special_tokens=True,
        score_prefix=True,
        query_length=16,
        document_length=32,
    )


@pytest.fixture
def student(model, tmp_path) -> Written:
    # A user's own folder has no record of its weights until results are written, and its JSON is the user's to edit.
    model.save_pretrained(tmp_path / "w")
    return Written(tmp_path / "w", vectors, 45, well_formed, (".py",))


@pytest.fixture
def pylate(model, tmp_path) -> Written:
    export_pylate(model, tmp_path / "w")  # of which the same is true
    return Written(tmp_path / "w", vectors, 15, well_formed)


@pytest.fixture
def single_vector(model, tmp_path) -> Written:
    export_single_vector(model, tmp_path / "w")
    return Written(tmp_path / "w", vectors, 15, well_formed)


@pytest.fixture
def index(model, tmp_path) -> Written:
    build_index(model, PASSAGES, tmp_path / "w", shard_size=2, dim=4, dtype="int8")
    tokens, pooled = model.encode_both(TEXTS, "query")

    def read(folder: Path) -> Any:
        opened = PassageIndex.load(folder)
        return opened.search(tokens, ["a", "b", "c"]), opened.search_pooled(pooled, ["a", "b", "c"])

    return Written(tmp_path / "w", read, 25)


@pytest.fixture
def index_that_is_gone_on_with(model, tmp_path) -> Written:
    build_index(model, PASSAGES, tmp_path / "w", shard_size=2, dim=4, dtype="int8")
    tokens, _ = model.encode_both(TEXTS, "query")

    def read(folder: Path) -> Any:
        opened = build_index(model, PASSAGES, folder, shard_size=2, dim=4, dtype="int8")
        return opened.search(tokens, ["a", "b", "c"])

    return Written(tmp_path / "w", read, 15)


@pytest.fixture
def bm25(tmp_path) -> Written:
    BM25Index.build(PASSAGES.items(), "en", tmp_path / "w")
    topics = {"a": TEXTS[0], "b": TEXTS[2], "c": "mvua"}
    return Written(tmp_path / "w", lambda folder: BM25Index(folder).search(topics), 25)


@pytest.fixture
def passage_cache(model, tmp_path) -> Written:
    def read(folder: Path) -> Any:
        tokens, pooled = encode_passages(model, PASSAGES, cache_dir=folder)
        return [vector.tolist() for vector in tokens], pooled.tolist()

    encode_passages(model, {"d": "another collection"}, cache_dir=tmp_path / "w")
    read(tmp_path / "w")
    return Written(tmp_path / "w", read, 10)


@pytest.fixture
def checkpoint(tiny_encoder, tmp_path, monkeypatch) -> Written:
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2, "learning_rate": 0.1}
    bitext = make_bitext(8)
    make_trainer(tiny_encoder, tmp_path / "out", bitext, **options).train()

    trainer = make_trainer(tiny_encoder, tmp_path / "again", bitext, **options)
    # Not trained on again, which would take a minute: every byte is compared before anything is loaded.
    loaded: list[str] = []
    monkeypatch.setattr(Trainer, "train", lambda self, checkpoint, *options: loaded.append(checkpoint))

    def read(folder: Path) -> Any:
        trainer.train(resume_from_checkpoint=str(folder))
        return {path.name: path.read_bytes() for path in Path(loaded[-1]).glob("*.*") if path.name != SETTINGS_FILE}

    return Written(tmp_path / "out" / "checkpoint-1", read, 25, without=(".py",))


@pytest.fixture
def pushed(model, tmp_path, monkeypatch) -> Written:
    """A student with results and a card; what is pushed are its files as they are."""
    folder = tmp_path / "w"
    model.save_pretrained(folder)
    scores = {"ndcg@10": 0.5, "pooled_ndcg@10": 0.25}
    results = {
        "date": "2026-01-01",
        "base_model": "owner/teacher",
        "license": "mit",
        "bitext": {"sw": {"kept": 5, "held_out": 1}},
        "bitext_sources": {"sw": ["owner/bitext"]},
        "protocol": "all of it",
        "languages": {"sw": {"seen": True, "queries": 3, "zero_shot": scores, "student": scores}},
        "weights": weights_hash(folder),
        "arguments": {},
    }
    write_json(folder / "results.json", with_digest(results), indent=2)
    write_card(folder, repo_id="owner/student")
    monkeypatch.setattr("optical_hf.hub.push._push", lambda folder, files, *options: list(files))

    def read(folder: Path) -> Any:
        # Texts, and JSON but for the results, are the user's to edit, and are pushed as they are.
        name_card(folder, "owner/student")
        push_student(folder, "owner/student", token="hf_" + "x" * 30)
        return weights_hash(folder), json.loads((folder / "results.json").read_text()).get("languages")

    def unseen(path: Path) -> bool:
        # Results without a digest are taken for those of 0.1.0, which wrote none.
        return path.name == "results.json" and "digest" not in json.loads(path.read_text())

    return Written(folder, read, 25, unseen, (".py",))


@pytest.fixture
def study_file(tmp_path) -> Written:
    (tmp_path / "w").mkdir()
    contents = {"passages.jsonl": '{"docid": "d1", "text": "the book"}\n', "qrels.tsv": "q1 0 d1 1\n"}
    contents |= {"sw.tsv": "the book\tkitabu\n", "topics.sw.tsv": "q1\tkitabu\n", "topics.yo.tsv": "q1\tìwé\n"}
    for name, content in contents.items():
        (tmp_path / "w" / name).write_text(content)
    text = """
teacher: owner/teacher
pairs: 2
bitext: {sw: sw.tsv}
rotations: {only: {seen: [sw], unseen: [yo]}}
seeds: [1]
methods: {ot: {max_steps: 1, learning_rate: 5e-5}}
evaluation:
  cross:
    passages: {en: passages.jsonl}
    topics: {sw: topics.sw.tsv, yo: topics.yo.tsv}
    qrels: qrels.tsv
"""
    (tmp_path / "w" / "study.yaml").write_text(text)

    def read(folder: Path) -> Any:
        return load_study(folder / "study.yaml").config

    # A value that is another, but may stand there, is the user's.
    return Written(tmp_path / "w", read, 40, lambda path: path.suffix == ".yaml", (".tsv", ".jsonl"))


@pytest.fixture
def config_file(tmp_path) -> Written:
    (tmp_path / "w").mkdir()
    arguments = {"output_dir": "o", "topics": "t.tsv", "passages": ["p.jsonl"], "qrels": "q.tsv", "memory_gb": 3.5}
    (tmp_path / "w" / "evaluate.yaml").write_text(yaml.safe_dump({**arguments, "single": True, "dtype": "float16"}))

    def read(folder: Path) -> Any:
        try:
            return evaluate_reader().read(["--config", str(folder / "evaluate.yaml")])
        except ValueError as error:
            # Arguments that are missing, or do not go together, may come from the command line as well.
            if str(error).startswith("--") or str(error).startswith("dim, pool_factor and dtype"):
                raise ValueError(f"{folder / 'evaluate.yaml'}: {error}") from error
            raise

    return Written(tmp_path / "w", read, 40, lambda path: path.suffix == ".yaml")


FIXTURES = ["student", "pylate", "single_vector", "index", "index_that_is_gone_on_with", "bm25", "passage_cache"]
FIXTURES += ["checkpoint", "pushed", "study_file", "config_file"]


@pytest.mark.parametrize("name", FIXTURES)
def test_mutations_are_named_or_change_nothing(request, caplog, name):
    written: Written = request.getfixturevalue(name)
    folder, rng = written.folder, random.Random(name)
    expected, files = written.read(folder), written.files()
    whole = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    named = 0
    for number in range(written.count):
        path, kind = files[number % len(files)], rng.choice(KINDS)
        mutate(path, rng, kind)
        changed = [each for each, content in whole.items() if each.read_bytes() != content]
        try:
            answer = written.read(folder)
        except (ValueError, OSError) as error:
            named += 1
            told = str(error)
            assert str(folder) in told, (path.name, kind, told)
            # Files that can be read but do not fit together may be any of them.
            assert any(each.name in told for each in changed) or all(map(well_formed, changed)), (
                path.name,
                kind,
                told,
            )
        else:
            assert answer == expected or any(map(written.unseen, changed)), (path.name, kind)
        for each, content in whole.items():
            each.write_bytes(content)
    # A cache is made anew, with a warning.
    assert named >= written.count / 3 or (name == "passage_cache" and "is damaged" in caplog.text)
