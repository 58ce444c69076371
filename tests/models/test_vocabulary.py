"""Models whose vocabulary was trimmed."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from optical_hf import OpticalConfig, OpticalStudent
from optical_hf.models.vocabulary import trim_vocabulary, unknown_share

TEXTS = ["who wrote it", "she wrote the book today"]


@pytest.fixture
def student(tiny_encoder):
    options = {"query_prefix": "this ", "projection_dim": 8, "document_skiplist": [".", "book"]}
    return OpticalStudent.from_checkpoint(tiny_encoder, **options)


@pytest.fixture
def unigram():
    """A student of XLM-R's kind: pieces with scores, a padding token that decides on positions, a mask at the end."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [
        "▁who",
        "▁wrote",
        "▁it",
        "▁kitabu",
        "▁",
        "kita",
        "bu",
        "▁hicho",
        "w",
        "h",
        "o",
        "k",
        "i",
        "t",
        "a",
        "b",
        "u",
    ]
    pieces += [(piece, -1.0 - number) for number, piece in enumerate(words)]
    tokenizer = Tokenizer(models.Unigram([*pieces, ("<mask>", 0.0)], unk_id=3))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    }
    size = len(pieces) + 1
    config = XLMRobertaConfig(
        vocab_size=size + 3, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=40, pad_token_id=1, bos_token_id=0, eos_token_id=2, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    student = OpticalStudent(OpticalConfig(text_config=config), XLMRobertaModel(config, add_pooling_layer=False))
    student.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **names)
    return student.eval()


def assert_same_vectors(small, model, texts):
    for role in ("query", "document"):
        for vectors, expected in zip(*(each.encode_both(texts, role) for each in (small, model)), strict=True):
            for one, other in zip(vectors, expected, strict=True):
                torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_texts_of_kept_tokens_have_the_same_vectors(student, tmp_path):
    before = student.backbone.get_input_embeddings().weight.shape[0]
    small = trim_vocabulary(student, TEXTS)
    vocabulary = small.tokenizer.get_vocab()
    kept = {"who", "wrote", "it", "she", "the", "book", "today", "this"}  # the prefix, too
    assert kept <= vocabulary.keys() and "rains" not in vocabulary and "[MASK]" in vocabulary
    assert small.backbone.get_input_embeddings().weight.shape[0] == len(vocabulary) < before
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert_same_vectors(small, student, [*TEXTS, "today she wrote who"])
    assert student.tokenizer.get_vocab().keys() >= {"rains"}  # the model itself is as before
    assert small.config.document_skiplist == ["book"]

    small.save_pretrained(tmp_path)
    assert_same_vectors(OpticalStudent.from_pretrained(tmp_path), student, TEXTS)
    texts = AutoTokenizer.from_pretrained(tmp_path)(["who wrote it"], return_tensors="pt")
    pooled = AutoModel.from_pretrained(tmp_path)(texts["input_ids"], texts["attention_mask"]).pooled
    expected = student(student.tokenizer(["who wrote it"], return_tensors="pt")["input_ids"]).pooled
    torch.testing.assert_close(pooled, expected, atol=1e-6, rtol=0)


def test_pieces_of_a_unigram_model(unigram):
    texts = ["who wrote it", "kitabu"]
    small = trim_vocabulary(unigram, texts)
    vocabulary = small.tokenizer.get_vocab()
    characters = {*"whotikabu"} - {"r", "e"}  # single ones that are in the texts, for words that are new
    assert {"▁who", "▁wrote", "▁it", "▁kitabu", *characters} <= vocabulary.keys()
    assert not {"▁hicho", "kita", "bu"} & vocabulary.keys()
    assert vocabulary["<pad>"] == 1 == small.config.text_config.pad_token_id
    assert vocabulary["<mask>"] == len(vocabulary) - 1 == small.tokenizer.mask_token_id
    assert_same_vectors(small, unigram, [*texts, "it wrote kitabu"])
    assert small.tokenizer.tokenize("kitab") == ["▁", *"kitab"] and unknown_share(small, ["kitab"]) == 0.0
    assert unknown_share(small, ["who z wrote z"]) == pytest.approx(2 / 6)  # "▁" and what is unknown, twice


def test_a_token_has_to_occur_often_enough(student):
    small = trim_vocabulary(student, ["who wrote it", "who wrote"], min_count=2)
    assert "wrote" in small.tokenizer.get_vocab() and "it" not in small.tokenizer.get_vocab()
    assert unknown_share(small, ["who wrote it"]) == pytest.approx(1 / 3)


def test_bad_input(student):
    with pytest.raises(ValueError, match="The texts use no token of the model"):
        trim_vocabulary(student, ["", ""])
    described = json.loads(student.tokenizer.backend_tokenizer.to_str())
    described["model"] = {"type": "BPE", "vocab": {"a": 0, "[UNK]": 1}, "merges": [], "unk_token": "[UNK]"}
    described["post_processor"], described["added_tokens"] = None, []
    student.tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(described)))
    with pytest.raises(ValueError, match="A vocabulary of the kind BPE cannot be trimmed"):
        trim_vocabulary(student, ["a"])


def test_the_command(tiny_encoder, tmp_path, call):
    (tmp_path / "bitext.tsv").write_text("who wrote it\tnani aliandika\nit rains\tmvua\n")
    words = ("trim", tiny_encoder, tmp_path / "small")
    said = call(*words, "--bitext", f"sw={tmp_path / 'bitext.tsv'}")
    small = OpticalStudent.from_pretrained(tmp_path / "small")
    assert {"nani", "rains"} <= small.tokenizer.get_vocab().keys() and "today" not in small.tokenizer.get_vocab()
    assert f"keeps {len(small.tokenizer.get_vocab())} of 31 tokens" in said
    assert "Give --bitext, --passages, or both" in call(*words)
