from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from closeness import assert_same_scores, assert_same_vectors
from multilingual import TEXTS, multilingual_encoder
from safetensors.torch import load_file
from transformers import AddedToken, AutoTokenizer

from optical_hf import OpticalStudent, export_pylate, export_single_vector, maxsim

SCORED = {"score_special_tokens": True, "score_prefix": True}
PREFIXES = {"query_prefix": "query: ", "document_prefix": "passage: "}
# What PyLate's format can say, by name.
FOR_PYLATE = {
    "plain": {"query_length": 62, "document_length": 62},
    "prompts": {**PREFIXES, "projection_dim": 8, "document_skiplist": [".", ",", "?"], "query_length": 40},
    "markers": {
        **{"query_prefix": "[Q]", "document_prefix": "[D]", "projection_dim": 8},
        **{"query_expansion": True, "query_length": 32, "document_length": 50},
    },
    "attended": {"query_expansion": True, "attend_to_expansion": True, "query_length": 20},
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The multilingual encoder, with two marker tokens."""
    folder = multilingual_encoder(tmp_path_factory.mktemp("multilingual"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = OpticalStudent.from_checkpoint(folder).backbone
    tokenizer.add_tokens([AddedToken(name, normalized=False, special=True) for name in ("[Q]", "[D]")], True)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def student(encoder):
    def make(**options) -> OpticalStudent:
        torch.manual_seed(0)
        return OpticalStudent.from_checkpoint(encoder, **options)

    return make


# PyLate


@pytest.mark.parametrize("name", FOR_PYLATE)
def test_what_is_exported_for_pylate_is_read_back(tmp_path, student, name):
    model = student(**SCORED, **FOR_PYLATE[name])
    export_pylate(model, tmp_path)
    again = OpticalStudent.from_checkpoint(tmp_path)
    for role in ("query", "document"):
        assert_same_vectors(again.encode(TEXTS, role), model.encode(TEXTS, role))
    general = json.loads((tmp_path / "config_sentence_transformers.json").read_text())
    prompts, markers = general["prompts"], (general["query_prefix"], general["document_prefix"])
    assert markers == (("[Q]", "[D]") if name == "markers" else ("", ""))
    assert prompts == (
        {"query": "query: ", "document": "passage: "} if name == "prompts" else dict.fromkeys(prompts, "")
    )


@pytest.mark.parametrize("name", FOR_PYLATE)
def test_sentence_transformers_loads_it_without_remote_code(tmp_path, student, name):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    model = student(**SCORED, **FOR_PYLATE[name])
    export_pylate(model, tmp_path)
    loaded = sentence_transformers.MultiVectorEncoder(str(tmp_path), device="cpu")
    queries, documents = loaded.encode_query(TEXTS), loaded.encode_document(TEXTS)
    assert_same_vectors(queries, model.encode(TEXTS, "query"))
    assert_same_vectors(documents, model.encode(TEXTS, "document"))
    expected = maxsim(model.encode(TEXTS, "query"), model.encode(TEXTS, "document"))
    assert_same_scores(loaded.similarity(queries, documents), expected, queries)


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "PyLate scores special tokens, and this model's `score_special_tokens` is False"),
        ({"score_special_tokens": True, **PREFIXES}, "PyLate scores the prefix, and this model's `score_prefix`"),
        ({**SCORED, "document_skiplist": ["</s>"]}, r"`document_skiplist` is \['</s>'\]"),
    ],
)
def test_what_pylate_cannot_say_is_refused(tmp_path, student, options, message):
    with pytest.raises(ValueError, match=message):
        export_pylate(student(**options), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("export", [export_pylate, export_single_vector])
def test_a_saved_student_is_not_overwritten(tmp_path, student, export):
    model = student(**SCORED)
    model.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=f"{tmp_path} holds a saved student, which this would overwrite"):
        export(model, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# Single vectors


@pytest.mark.parametrize(
    "options",
    [
        {},
        {**PREFIXES, "projection_dim": 8, "query_length": 20, "document_length": 50},
        {"pooling": "cls", "query_length": 50, "document_length": 50, "query_expansion": True},
    ],
    ids=["plain", "projection and two lengths", "first token"],
)
def test_single_vectors(tmp_path, student, options):
    model = student(**options)
    export_single_vector(model, tmp_path)
    again = OpticalStudent.from_checkpoint(tmp_path)
    for role in ("query", "document"):
        expected = model.encode(TEXTS, role, pooled=True)
        torch.testing.assert_close(again.encode(TEXTS, role, pooled=True), expected, rtol=0, atol=1e-5)
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    loaded = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    for role, encode in (("query", loaded.encode_query), ("document", loaded.encode_document)):
        expected = model.encode(TEXTS, role, pooled=True)
        torch.testing.assert_close(encode(TEXTS, convert_to_tensor=True), expected, rtol=0, atol=1e-5)
    scores = loaded.similarity(loaded.encode_query(TEXTS), loaded.encode_document(TEXTS))
    expected = model.encode(TEXTS, "query", pooled=True) @ model.encode(TEXTS, "document", pooled=True).T
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)


def test_single_vectors_that_attend_to_expansion_are_refused(tmp_path, student):
    with pytest.raises(ValueError, match="`attend_to_expansion` is True"):
        export_single_vector(student(query_expansion=True, attend_to_expansion=True), tmp_path)


# PyLate itself, which wants an older Transformers: in an environment of its own

PYLATE = """
import json, sys
import torch
import pylate
from pylate import models, scores
from safetensors.torch import save_file

texts, folders = json.loads(open(sys.argv[1]).read()), sys.argv[2:]
for folder in folders:
    model = models.ColBERT(folder, device="cpu")
    names = {role: role if model.prompts.get(role) else None for role in ("query", "document")}
    options = {"convert_to_tensor": True, "show_progress_bar": False}
    queries = model.encode(texts, prompt_name=names["query"], is_query=True, **options)
    documents = model.encode(texts, prompt_name=names["document"], is_query=False, **options)
    table = [[float(scores.colbert_scores(q[None], d[None])) for d in documents] for q in queries]
    tensors = {"scores": torch.tensor(table)}
    for role, vectors in (("query", queries), ("document", documents)):
        tensors[role] = torch.cat(vectors)
        tensors[role + "_lengths"] = torch.tensor([len(one) for one in vectors])
    save_file(tensors, folder + "/found.safetensors")
print("pylate", pylate.__version__)
"""


@pytest.fixture(scope="module")
def pylate_python(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pylate")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(folder / "bin" / "pip"), "install", "-q"]
    needed = ["datasets", "accelerate", "pandas", "ujson==5.12.0", "fastkmeans==0.5.0"]
    versions = ["torch==2.13.0", "sentence-transformers==5.3.0", "transformers<=5.3.0"]
    subprocess.run([*install, *versions, *needed], check=True)
    # Its index, fast-plaid, pins another torch; models and scores do without.
    subprocess.run([*install, "--no-deps", "pylate==1.6.0"], check=True)
    return str(folder / "bin" / "python")


@pytest.mark.slow
def test_pylate_gives_our_vectors_and_scores(tmp_path, student, pylate_python):
    # PyLate takes the spaces off a text, and so the last of the prefix of an empty one: "query:", not "query: ".
    texts = [text.strip() or "?" for text in TEXTS]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    students = {name: student(**SCORED, **options) for name, options in FOR_PYLATE.items()}
    for name, model in students.items():
        export_pylate(model, tmp_path / name)
    command = [pylate_python, "-c", PYLATE, str(tmp_path / "texts.json"), *(str(tmp_path / name) for name in students)]
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["pylate", "1.6.0"]
    for name, model in students.items():
        found = load_file(tmp_path / name / "found.safetensors")
        expected = {role: model.encode(texts, role) for role in ("query", "document")}
        for role, vectors in expected.items():
            assert found[f"{role}_lengths"].tolist() == [len(one) for one in vectors]
            difference = (found[role] - torch.cat(vectors)).abs().max()
            print(f"{name}, {role}: {len(found[role])} token vectors, largest difference {difference:.1e}")
            torch.testing.assert_close(found[role], torch.cat(vectors), rtol=0, atol=1e-5)
        scores = maxsim(expected["query"], expected["document"])
        print(f"{name}: {scores.numel()} scores, largest difference {(found['scores'] - scores).abs().max():.1e}")
        assert_same_scores(found["scores"], scores, expected["query"])
