"""Fifty ragged texts in five scripts, and a small random XLM-R whose tokenizer knows them."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

SENTENCES = [
    "Ta ni ó kọ ìwé yìí? Àwọn ọmọ ilé-ìwé ń ka ìwé náà, wọ́n sì fẹ́ràn rẹ̀ gan-an.",
    "من كتب هذا الكتاب؟ يقرأ التلاميذ الكتاب في المدرسة، وهم يحبونه كثيرا.",
    "यह किताब किसने लिखी? विद्यार्थी इसे विद्यालय में पढ़ते हैं, और उन्हें यह बहुत पसंद है।",
    "Кто написал эту книгу? Ученики читают её в школе, и она им очень нравится.",
    "这 本 书 是 谁 写 的 ？ 学 生 们 在 学 校 里 读 它 ， 他 们 非 常 喜 欢 。",
]
# Of each sentence nine pieces, and a text far longer than any limit.
TEXTS = [" ".join(one.split()[start:end]) for one in SENTENCES for start in (0, 2, 5) for end in (6, 9, 12)]
TEXTS += [f"{one} " * 12 for one in SENTENCES]
TEXTS[3:6] = ["", ".", "query: query: ?!"]


def frequent_pieces(longest: int = 4) -> list[tuple[str, float]]:
    """Count characters, and longer pieces found twice; `UnigramTrainer` would find others from run to run."""
    words = unicodedata.normalize("NFKC", " ".join([*SENTENCES, "query: passage: . , ? !"])).split()
    counts = Counter(
        word[start : start + length]
        for word in (f"▁{word}" for word in words)
        for length in range(1, longest + 1)
        for start in range(len(word) - length + 1)
    )
    pieces = sorted(piece for piece, count in counts.items() if count > 1 or len(piece) == 1)
    return [(piece, math.log(counts[piece] / counts.total())) for piece in pieces]


def multilingual_encoder(folder: Path) -> Path:
    """Save an XLM-R of two layers, with random weights and a tokenizer of the texts' frequent pieces."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.Unigram([*((token, 0.0) for token in special), *frequent_pieces()], unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=62,
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    XLMRobertaModel(
        XLMRobertaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            initializer_range=0.2,
            pad_token_id=1,
        )
    ).save_pretrained(folder)
    return folder
