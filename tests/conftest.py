from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_lines import call  # noqa: F401
from hub_server import hub  # noqa: F401
from rerankers import tiny_cross_encoder  # noqa: F401
from tiny_words import VOCABULARY
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from trainers import build  # noqa: F401
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words and punctuation, lowercased; ids as in `VOCABULARY`; `[CLS] text [SEP]`."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", VOCABULARY["[CLS]"]), ("[SEP]", VOCABULARY["[SEP]"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


@pytest.fixture(scope="session")
def tiny_bert_config() -> BertConfig:
    # A wide initialisation, so that the vectors of different tokens differ.
    return BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,
        pad_token_id=0,
    )


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory, tiny_tokenizer, tiny_bert_config) -> Path:
    """Folder of a plain BERT encoder: random weights, pooler, the tiny tokenizer. Do not write to it."""
    folder = tmp_path_factory.mktemp("tiny-encoder")
    torch.manual_seed(0)
    BertModel(tiny_bert_config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def one_thread():
    """One thread, as in each of two processes: the sums of other parts would be rounded in another way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
