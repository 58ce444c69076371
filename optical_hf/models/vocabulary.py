"""A model with only the tokens that some texts use."""

from __future__ import annotations

import copy
import json
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast

from .modeling_optical import OpticalModel

Model = TypeVar("Model", bound=OpticalModel)
_AT_ONCE = 1000  # texts that are tokenised together


def trim_vocabulary(model: Model, texts: Iterable[str], min_count: int = 1) -> Model:
    """Make a copy of a model whose tokenizer and embeddings hold only what some texts use.

    Of multilingual-e5-small's 118 million parameters, 96 million are the embeddings of 250,000 tokens; a few languages
    use a tenth of them. A text whose tokens are all kept has the same vectors as before. Kept are the tokens of the
    texts in their Unicode forms NFC and NFD, all special and added tokens, and each single character that occurs, so
    that a new word of the same letters is cut into smaller pieces instead of being lost. A character that is not kept
    becomes the unknown token: see [`unknown_share`].

    Args:
        model ([`OpticalStudent`] or [`OpticalTeacher`]): a model with a fast tokenizer of the kind Unigram, WordPiece
            or WordLevel. It stays as it is.
        texts (`Iterable[str]`): such as both sides of the bitext, and the collection that will be searched.
        min_count (`int`, *optional*, defaults to 1): how often a token has to occur in them.

    Returns:
        The same class of model.

    Raises:
        ValueError: if the tokenizer is of another kind, or the texts use no token.

    Example:

    ```python
    >>> student = OpticalStudent.from_checkpoint("intfloat/multilingual-e5-small", query_prefix="query: ")
    >>> small = trim_vocabulary(student, [*bitext["english"], *bitext["translation"]])
    >>> small.save_pretrained("small-student")
    ```
    """
    tokenizer = model.tokenizer
    described = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {"model": {"type": "none"}}
    kind = described["model"]["type"]
    if kind not in ("Unigram", "WordPiece", "WordLevel"):
        raise ValueError(
            f"A vocabulary of the kind {kind} cannot be trimmed: only Unigram (XLM-R, E5, BGE-M3) and "
            "WordPiece (BERT) can, whose other tokens do not depend on those that go."
        )
    prefixes = [prefix for prefix in (model.config.query_prefix, model.config.document_prefix) if prefix]
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    counts, characters = torch.zeros(1 + max(vocabulary.values()), dtype=torch.long), set[str]()
    with tqdm(desc="Counting tokens", unit="text", delay=2) as bar:
        for batch in _batches(texts):
            rows = tokenizer(_in_every_form(batch), add_special_tokens=False, return_attention_mask=False)["input_ids"]
            counts += torch.bincount(
                torch.tensor([token for row in rows for token in row], dtype=torch.long), minlength=len(counts)
            )
            for text in batch:
                characters.update(text)
            bar.update(len(batch))
    if not counts.any():
        raise ValueError("The texts use no token of the model: there is nothing to keep.")
    always = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    padding = model.config.text_config.pad_token_id
    if isinstance(padding, int) and padding < 1000:  # which stays: RoBERTa and its kin count positions from it
        always |= set(range(padding))
    always |= {token for prefix in prefixes for token in tokenizer.encode(prefix, add_special_tokens=False)}
    backend = tokenizer.backend_tokenizer
    normal = {part for character in characters for part in _normalized(backend, character)}
    always |= {
        number for piece, number in vocabulary.items() if piece.removeprefix("##").removeprefix("▁") in normal | {""}
    }
    kept = sorted(always | set((counts >= min_count).nonzero()[:, 0].tolist()))
    return _rebuild(model, described, kept)


def unknown_share(model: OpticalModel, texts: Iterable[str]) -> float:
    """Return the share of the tokens of some texts that are the unknown token: what a model cannot read.

    Args:
        model ([`OpticalStudent`] or [`OpticalTeacher`]): such as one whose vocabulary was trimmed.
        texts (`Iterable[str]`): the texts.
    """
    unknown, every = 0, 0
    for batch in _batches(texts):
        for row in model.tokenizer(batch, add_special_tokens=False, return_attention_mask=False)["input_ids"]:
            unknown += row.count(model.tokenizer.unk_token_id)
            every += len(row)
    return unknown / max(1, every)


def _rebuild(model: Model, described: dict[str, Any], kept: list[int]) -> Model:
    new = {old: number for number, old in enumerate(kept)}
    own: dict[str, Any] = described["model"]
    if own["type"] == "Unigram":
        own["vocab"] = [own["vocab"][old] for old in kept if old < len(own["vocab"])]
        own["unk_id"] = new[own["unk_id"]]
    else:
        own["vocab"] = {piece: new[old] for piece, old in own["vocab"].items() if old in new}
    for token in described["added_tokens"]:
        token["id"] = new[token["id"]]
    for token in (described.get("post_processor") or {}).get("special_tokens", {}).values():
        token["ids"] = [new[old] for old in token["ids"]]
    for side in ("sep", "cls"):  # of BERT's own post-processor
        if side in (described.get("post_processor") or {}):
            text, old = described["post_processor"][side]
            described["post_processor"][side] = [text, new[old]]
    described |= {"truncation": None, "padding": None}  # left there by the last call
    old_tokenizer = model.tokenizer
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)),
        model_max_length=old_tokenizer.model_max_length,
        padding_side=old_tokenizer.padding_side,
        truncation_side=old_tokenizer.truncation_side,
        **old_tokenizer.special_tokens_map,
    )

    table: Any = model.backbone.get_input_embeddings()
    text_config = model.config.text_config
    config: Any = copy.deepcopy(model.config)
    config.text_config.vocab_size = len(kept)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "mask_token_id"):
        if isinstance(old := getattr(text_config, name, None), int):
            setattr(config.text_config, name, new.get(old))
    skipped: list[Any] = config.document_skiplist or []
    ids = [new[old] for old in skipped if isinstance(old, int) and old in new]
    words = [word for word in skipped if isinstance(word, str) and _is_known(tokenizer, word)]
    config.document_skiplist = [*ids, *words] or None
    small = type(model)(config)
    weights = dict(model.state_dict())
    name = next(name for name, parameter in model.named_parameters() if parameter is table.weight)
    weights[name] = table.weight.detach()[torch.tensor(kept, device=table.weight.device)]
    small.load_state_dict(weights)
    small.to(table.weight.device, table.weight.dtype)
    small.config.name_or_path = model.config.name_or_path
    small.tokenizer = tokenizer
    return small


def _is_known(tokenizer: PreTrainedTokenizerFast, word: str) -> bool:
    return tokenizer.unk_token_id not in tokenizer.encode(word, add_special_tokens=False)


def _normalized(backend: Tokenizer, character: str) -> str:
    return backend.normalizer.normalize_str(character) if backend.normalizer is not None else character


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    texts = iter(texts)
    while batch := list(islice(texts, _AT_ONCE)):
        yield batch


def _in_every_form(batch: list[str]) -> list[str]:
    # An accented letter may come as one character or as two, which some tokenizers cut in another way.
    forms = {form: [unicodedata.normalize(form, text) for text in batch] for form in ("NFC", "NFD")}
    return batch + [each for texts in forms.values() for each, text in zip(texts, batch, strict=True) if each != text]
