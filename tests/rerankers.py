"""Cross-encoders of random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerBase


def write_cross_encoder(
    folder: Path, config: BertConfig, tokenizer: PreTrainedTokenizerBase, num_labels: int = 1
) -> Path:
    torch.manual_seed(1)
    config = BertConfig.from_dict({**config.to_dict(), "num_labels": num_labels})
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_cross_encoder(tmp_path_factory, tiny_tokenizer, tiny_bert_config) -> Path:
    """Folder of a BERT with a head of one score, without the files of sentence-transformers. Do not write to it."""
    return write_cross_encoder(tmp_path_factory.mktemp("tiny-cross-encoder"), tiny_bert_config, tiny_tokenizer)
