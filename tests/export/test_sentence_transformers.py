from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from closeness import assert_same_scores, assert_same_vectors
from multilingual import TEXTS, multilingual_encoder

from optical_hf import OpticalStudent, OpticalTeacher, maxsim

sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")

PREFIXES = {"query_prefix": "query: ", "document_prefix": "passage: "}


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    return multilingual_encoder(tmp_path_factory.mktemp("multilingual"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {**PREFIXES, "projection_dim": 8, "document_skiplist": [".", ",", "?"]},
        {**PREFIXES, "score_prefix": True, "query_length": 30, "document_length": 50},
        {**PREFIXES, "query_expansion": True, "query_length": 20},
        {"query_expansion": True, "attend_to_expansion": True, "query_length": 40, "score_special_tokens": True},
    ],
    ids=["plain", "projection and skiplist", "scored prefix", "expansion", "attended expansion"],
)
def test_multi_vector_encoder_gives_our_vectors_and_scores(tmp_path, encoder, options):
    torch.manual_seed(0)
    student = OpticalStudent.from_checkpoint(encoder, **options)
    student.save_pretrained(tmp_path / "student")
    expected = {role: student.encode(TEXTS, role) for role in ("query", "document")}
    scores = maxsim(expected["query"], expected["document"])
    model = sentence_transformers.MultiVectorEncoder(str(tmp_path / "student"), trust_remote_code=True, device="cpu")
    model.save_pretrained(str(tmp_path / "again"))
    again = sentence_transformers.MultiVectorEncoder(str(tmp_path / "again"), trust_remote_code=True, device="cpu")
    for other in (model, again):
        queries, documents = other.encode_query(TEXTS, batch_size=7), other.encode_document(TEXTS, batch_size=7)
        assert_same_vectors(queries, expected["query"])
        assert_same_vectors(documents, expected["document"])
        assert_same_scores(other.similarity(queries, documents), scores, queries)
        assert other.get_embedding_dimension() == student.config.output_dim
    # What it saved is our model as well.
    loaded = OpticalStudent.from_pretrained(tmp_path / "again")
    for one, two in zip(loaded.encode(TEXTS, "query"), expected["query"], strict=True):
        assert torch.equal(one, two)


def test_the_encoder_is_stored_once(tmp_path, encoder):
    OpticalStudent.from_checkpoint(encoder).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["model.safetensors"]
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_settings_of_sentence_transformers_stay_and_prompts_follow_the_model(tmp_path, encoder):
    student = OpticalStudent.from_checkpoint(encoder, **PREFIXES)
    student.save_pretrained(tmp_path / "student")
    model = sentence_transformers.MultiVectorEncoder(
        str(tmp_path / "student"), trust_remote_code=True, similarity_fn_name="meanmaxsim"
    )
    model.save_pretrained(str(tmp_path / "again"))
    general = json.loads((tmp_path / "again" / "config_sentence_transformers.json").read_text())
    assert general["similarity_fn_name"] == "meanmaxsim"
    assert general["prompts"] == {"query": "query: ", "document": "passage: "}
    assert "__version__" in general


def test_a_new_prefix_is_written_over_the_old_one(tmp_path, encoder):
    for prefix in ("query: ", "question: "):
        OpticalTeacher.from_checkpoint(encoder, query_prefix=prefix).save_pretrained(tmp_path)
        general = json.loads((tmp_path / "config_sentence_transformers.json").read_text())
        assert general["prompts"] == {"query": prefix, "document": ""}


FRESH = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "optical_hf":
            raise ImportError("blocked")
sys.meta_path.insert(0, Block())
import torch
from sentence_transformers import MultiVectorEncoder
folder = sys.argv[1]
try:
    MultiVectorEncoder(folder)
except ValueError as error:
    assert "trust_remote_code=True" in str(error)
else:
    raise AssertionError("loaded without trust_remote_code")
expected = torch.load(folder + "/expected.pt", weights_only=True)
model = MultiVectorEncoder(folder, trust_remote_code=True, device="cpu")
model.save_pretrained(folder + "/again")
for other in (model, MultiVectorEncoder(folder + "/again", trust_remote_code=True, device="cpu")):
    for texts, encode in ((expected["texts"], other.encode_query), (expected["texts"], other.encode_document)):
        for one, two in zip(encode(texts), expected[encode.__name__], strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-5)
print("fresh process done")
"""


def test_where_this_package_is_not(tmp_path, encoder):
    student = OpticalStudent.from_checkpoint(encoder, **PREFIXES)
    folder = tmp_path / "student"
    student.save_pretrained(folder)
    texts = TEXTS[:8]
    torch.save(
        {
            "texts": texts,
            "encode_query": student.encode(texts, "query"),
            "encode_document": student.encode(texts, "document"),
        },
        folder / "expected.pt",
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-I", "-c", FRESH, str(folder)],
        cwd=tmp_path,
        env=environment | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "HF_MODULES_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0 and "fresh process done" in result.stdout, result.stderr
