"""Encoders that cannot be what they are asked to be: refused at load with the numbers, or warned of."""

from __future__ import annotations

import shutil

import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    DPRConfig,
    DPRQuestionEncoder,
    FNetConfig,
    FNetModel,
    MT5Config,
    MT5EncoderModel,
    RobertaConfig,
    RobertaModel,
)

from optical_hf import OpticalStudent, OpticalTeacher
from optical_hf.models.loading_optical import longest_input

SMALL = {"vocab_size": 31, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}


@pytest.fixture
def save(tmp_path, tiny_tokenizer):
    """Save a model with the tiny tokenizer, and return the folder."""

    def save(model):
        model.save_pretrained(tmp_path / "encoder")
        tiny_tokenizer.save_pretrained(tmp_path / "encoder")
        return tmp_path / "encoder"

    return save


def roberta(positions: int = 40) -> RobertaModel:
    return RobertaModel(
        RobertaConfig(**SMALL, num_attention_heads=2, max_position_embeddings=positions, pad_token_id=0)
    )


@pytest.mark.parametrize(("name", "length"), [("document_length", 1024), ("query_length", 100)])
def test_a_length_beyond_the_encoder_is_refused(tiny_encoder, tmp_path, name, length):
    with pytest.raises(ValueError, match=f"`{name}` is {length}, but .* reads at most 64 tokens"):
        OpticalTeacher.from_checkpoint(tiny_encoder, **{name: length})
    student = OpticalStudent.from_checkpoint(tiny_encoder)
    student.save_pretrained(tmp_path / "student")
    with pytest.raises(ValueError, match=f"`{name}` is {length}, but .*student reads at most 64 tokens"):
        OpticalStudent.from_checkpoint(tmp_path / "student", **{name: length})


def test_roberta_reads_less_than_its_table_of_positions(save):
    folder = save(roberta(40))
    teacher = OpticalTeacher.from_checkpoint(folder)
    assert longest_input(teacher.backbone) == 39  # positions start behind the padding index, 0 here
    assert (teacher.config.query_length, teacher.config.document_length) == (39, 39)
    teacher.encode_tokens(["the book " * 40], "document")
    with pytest.raises(ValueError, match="`document_length` is 40, but .* reads at most 39 tokens"):
        OpticalTeacher.from_checkpoint(folder, document_length=40)


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(tiny_encoder, tiny_bert_config, save):
    small = BertConfig.from_dict({**tiny_bert_config.to_dict(), "vocab_size": 20})
    with pytest.raises(ValueError, match="has 31 tokens, and its encoder 20 embeddings"):
        OpticalTeacher.from_checkpoint(save(AutoModel.from_config(small)))


def test_encoders_without_a_vector_a_token_are_refused(save):
    config = DPRConfig(**SMALL, num_attention_heads=2, max_position_embeddings=64)
    with pytest.raises(ValueError, match="is a DPRQuestionEncoder, which gives one vector a text and none a token"):
        OpticalTeacher.from_checkpoint(save(DPRQuestionEncoder(config)))


def test_half_of_an_encoder_decoder_is_refused(save):
    config = MT5Config(vocab_size=31, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    with pytest.raises(ValueError, match=r"is half of an encoder-decoder \(MT5EncoderModel\).* Use an encoder that"):
        OpticalTeacher.from_checkpoint(save(MT5EncoderModel(config)))


def test_an_encoder_with_code_of_its_own_is_refused(tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    config = (folder / "config.json").read_text().replace('"bert"', '"brand-new"')
    (folder / "config.json").write_text(config)
    with pytest.raises(ValueError, match="is no model of transformers, or brings code of its own. Use an encoder"):
        OpticalTeacher.from_checkpoint(folder)


def test_vectors_that_depend_on_the_padding_are_warned_of(save, tiny_encoder, caplog):
    torch.manual_seed(0)
    OpticalTeacher.from_checkpoint(tiny_encoder)
    assert "when a text is padded" not in caplog.text
    OpticalTeacher.from_checkpoint(save(FNetModel(FNetConfig(**SMALL, max_position_embeddings=64, pad_token_id=0))))
    assert "(FNetModel) change by" in caplog.text and "`batch_size=1`" in caplog.text
