"""The quickstart's model and sample: the real multilingual-e5-small."""

from __future__ import annotations

import unicodedata

import pytest
import torch

from optical_hf import OpticalTeacher, load_bitext, maxsim
from optical_hf.data.trec_files import read_passages, read_qrels, read_topics
from optical_hf.quickstart import SAMPLE, quickstart_model
from optical_hf.quickstart.e5_q4 import read_e5_q4
from optical_hf.quickstart.model import MODEL_NAME


@pytest.fixture(scope="module")
def teacher() -> OpticalTeacher:
    return OpticalTeacher.from_checkpoint(quickstart_model())


def test_model_is_made_once(teacher, tmp_path):
    assert quickstart_model() == quickstart_model()
    assert (teacher.config.query_prefix, teacher.config.document_prefix) == ("query: ", "passage: ")
    assert teacher.config.output_dim == 384 and len(teacher.tokenizer) == 250_002
    # 117.5 million weights, as in the original (without its pooler).
    assert sum(parameter.numel() for parameter in teacher.parameters()) == 117_505_920


def test_what_a_kill_left_half_made_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("optical_hf.quickstart.model.read_e5_q4", lambda _: ({"weight": torch.ones(2)}, {}))
    for _ in range(2):  # while the model is made, and when it is there
        half = tmp_path / f".{MODEL_NAME}.0123456789ab.partial" / MODEL_NAME
        half.mkdir(parents=True)
        (half / "model.safetensors").write_bytes(b"half")
        assert quickstart_model(tmp_path) == tmp_path / MODEL_NAME
        assert [path.name for path in tmp_path.iterdir()] == [MODEL_NAME]
    assert (tmp_path / MODEL_NAME / "README.md").is_file()


def test_model_knows_translations(teacher):
    english = ["The cat sleeps on the sofa.", "Prices of petrol rose again.", "She won the election."]
    swahili = ["Paka analala kwenye kochi.", "Bei ya mafuta imepanda tena.", "Alishinda uchaguzi."]
    assert maxsim(teacher.encode(swahili, "query"), teacher.encode(english, "query")).argmax(1).tolist() == [0, 1, 2]


def test_cut_off_weights_are_named(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"E5S1\x01\x00")
    with pytest.raises(ValueError, match="weights.bin ends too early"):
        read_e5_q4(tmp_path / "weights.bin")
    (tmp_path / "weights.bin").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match="weights.bin is not an E5S1 file"):
        read_e5_q4(tmp_path / "weights.bin")


def test_sample_is_complete():
    for language in ("sw", "yo"):
        counts = load_bitext({language: SAMPLE / f"bitext.en-{language}.tsv"}).counts[language]
        assert counts["kept"] >= 400 and sum(counts.values()) == counts["kept"]
    passages, qrels = read_passages(SAMPLE / "passages.en.jsonl"), read_qrels(SAMPLE / "qrels.tsv")
    assert len(passages) >= 60
    for language in ("en", "sw", "yo", "ha"):
        topics = read_topics(SAMPLE / f"topics.{language}.tsv")
        assert topics.keys() == qrels.keys()
        assert all(text == unicodedata.normalize("NFC", text) for text in topics.values())
    assert all(documents.keys() <= passages.keys() for documents in qrels.values())
