"""Fifty ragged texts in five scripts, and a small random XLM-R whose tokenizer knows them."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
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


def multilingual_encoder(folder: Path) -> Path:
    """Save an XLM-R of two layers, with random weights and a tokenizer trained on the texts."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator([*SENTENCES, "query: passage: . , ? !"], trainer)
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
