"""Which layers are frozen, in encoders that keep them in different ways."""

from __future__ import annotations

import pytest
from datasets import Dataset
from transformers import AlbertConfig, AlbertModel, BertConfig, BertModel, FlaubertConfig, XLMConfig, XLMModel

from optical_hf import OpticalConfig, OpticalStudent
from optical_hf.training.freezing import freeze, warn_of_added_tokens


def frozen(backbone) -> set[str]:
    student = OpticalStudent(OpticalConfig(text_config=backbone.config), backbone=backbone)
    freeze(student, embeddings=False, layers=2)
    return {name for name, parameter in backbone.named_parameters() if not parameter.requires_grad}


def test_bert_layers():
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}
    backbone = BertModel(BertConfig(num_hidden_layers=3, **sizes))
    lower = ("encoder.layer.0.", "encoder.layer.1.")
    wanted = {name for name, _ in backbone.named_parameters() if name.startswith(lower)}
    assert frozen(backbone) == wanted and len(wanted) == 32


@pytest.mark.parametrize("kind", [XLMConfig, FlaubertConfig])
def test_xlm_layers_are_frozen_whole(kind):
    backbone = XLMModel(kind(emb_dim=8, n_layers=3, n_heads=2, vocab_size=9))
    parts = ("attentions", "layer_norm1", "ffns", "layer_norm2")
    wanted = {f"{part}.{index}." for part in parts for index in (0, 1)}
    names = frozen(backbone)
    assert {".".join(name.split(".")[:2]) + "." for name in names} == wanted


def test_layers_that_share_their_weights_are_refused():
    sizes = {"hidden_size": 8, "embedding_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}
    backbone = AlbertModel(AlbertConfig(num_hidden_layers=3, **sizes))
    with pytest.raises(ValueError, match="AlbertModel has no list of its 3 layers. They may share their weights"):
        frozen(backbone)
    with pytest.raises(ValueError, match="`freeze_layers` is 2, and the student has 1 layers"):
        frozen(AlbertModel(AlbertConfig(num_hidden_layers=1, **sizes)))


def test_added_tokens_of_the_bitext_are_warned_of_while_the_embeddings_are_frozen(tiny_encoder, build, caplog):
    def student():
        model = OpticalStudent.from_checkpoint(tiny_encoder)
        model.tokenizer.add_tokens(["gari", "ndege", "meli"])
        model.backbone.resize_token_embeddings(len(model.tokenizer))
        return model

    def said():
        return [record.getMessage() for record in caplog.records if record.name.startswith("optical_hf")]

    texts = ["gari leo", "kitabu", "ndege leo", "gari mvua", "habari"]
    bitext = Dataset.from_dict({"english": ["a"] * 5, "translation": texts, "language": ["sw"] * 5})
    build(bitext, student=student())
    assert said() == [
        "2 tokens that were added to the student's tokenizer are in the first 5 translations, such as 'gari' (in 2 of "
        "them). The embeddings are frozen: rows of these tokens that were never trained stay random. If so, train "
        "them (`freeze_embeddings` false), or use the tokenizer without them."
    ]
    caplog.clear()
    build(bitext, student=student(), freeze_embeddings=False)
    warn_of_added_tokens(student(), bitext.select([1, 4]))
    warn_of_added_tokens(OpticalStudent.from_checkpoint(tiny_encoder), bitext)
    assert said() == []
    warn_of_added_tokens(student(), bitext.to_iterable_dataset())
    assert said()[0].startswith("2 tokens that were added")
