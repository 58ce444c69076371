"""From texts to tensors: prefix, truncation, query expansion, and the mask of the tokens that are scored.

This file travels with every saved model (remote code), so it imports only its siblings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from .configuration_optical import OpticalConfig

ROLES = ("query", "document")
_WINDOW = 2048  # texts that are tokenised at once


def process_texts(
    texts: Sequence[str], role: str, tokenizer: PreTrainedTokenizerBase, config: OpticalConfig
) -> dict[str, torch.Tensor]:
    """Tokenise texts of one role into a padded batch, and mark the tokens that are scored.

    A token is scored unless it is padding, a special token (`score_special_tokens`), part of the prefix
    (`score_prefix`) or, in a document, in `document_skiplist`. The mask tokens of query expansion are scored. A text
    of which nothing would be left, such as an empty one, is scored by all its attended tokens, so that every text has
    at least one vector.

    Args:
        texts (`list[str]`):
            The texts, without prefix; at least one.
        role (`str`):
            `"query"` or `"document"`: decides prefix, length and expansion.
        tokenizer (`PreTrainedTokenizerBase`):
            The model's tokenizer.
        config (`OpticalConfig`):
            The model's configuration.

    Returns:
        `dict[str, torch.Tensor]`: `input_ids` and `attention_mask` (`int64`), `scoring_mask` (`bool`), each
        `(batch, tokens)`, padded on the right.

    Raises:
        ValueError: if the role is unknown, `texts` is not a list of strings, the role's length has no room for a text
            beside the special tokens, a text has no tokens at all, or the tokenizer lacks a token that is needed.
    """
    return _padded(_tokenised(texts, role, tokenizer, config), role, tokenizer, config)


def process_in_batches(
    texts: Sequence[str], role: str, tokenizer: PreTrainedTokenizerBase, config: OpticalConfig, batch_size: int
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Yield batches of texts of like numbers of tokens, long ones first, as [`process_texts`] makes them.

    The texts of the next batches are tokenised while the caller works on a batch.

    Args:
        texts (`Sequence[str]`): any number of texts, without prefix.
        role, tokenizer, config: as there.
        batch_size (`int`): texts a batch.

    Returns:
        `Iterator[tuple[list[int], dict[str, torch.Tensor]]]`: which texts, and their tensors.

    Raises:
        ValueError: as [`process_texts`].
    """
    # By characters, of all texts; then by tokens, of which a list of all texts would take much memory.
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]), reverse=True)
    size = max(1, _WINDOW // batch_size) * batch_size

    def batches(window: list[int]) -> list[tuple[list[int], dict[str, torch.Tensor]]]:
        rows = _tokenised([texts[index] for index in window], role, tokenizer, config)
        by_tokens = sorted(range(len(window)), key=lambda place: len(rows[place][0]), reverse=True)
        return [
            (
                [window[place] for place in by_tokens[start : start + batch_size]],
                _padded([rows[place] for place in by_tokens[start : start + batch_size]], role, tokenizer, config),
            )
            for start in range(0, len(window), batch_size)
        ]

    with ThreadPoolExecutor(1) as worker:
        waiting = deque[Future[list[tuple[list[int], dict[str, torch.Tensor]]]]]()
        for start in range(0, len(order), size):
            waiting.append(worker.submit(batches, order[start : start + size]))
            if len(waiting) == 2:
                yield from waiting.popleft().result()
        for window in waiting:
            yield from window.result()


def _tokenised(
    texts: Sequence[str], role: str, tokenizer: PreTrainedTokenizerBase, config: OpticalConfig
) -> list[tuple[list[int], list[int]]]:
    # Token ids and the mask of special tokens of each text.
    if role not in ROLES:
        raise ValueError(f"Unknown role {role!r}; it has to be 'query' or 'document'.")
    if isinstance(texts, str) or not texts:
        raise ValueError(f"`texts` has to be a list of at least one string, not {texts!r}.")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts[{index}] is {text!r}; it has to be a string.")
    is_query = role == "query"
    prefix = config.query_prefix if is_query else config.document_prefix
    length = config.query_length if is_query else config.document_length
    expand = is_query and config.query_expansion
    if length <= tokenizer.num_special_tokens_to_add():
        raise ValueError(
            f"`{role}_length` is {length}: the tokenizer adds {tokenizer.num_special_tokens_to_add()} special tokens, "
            "which leaves no room for a text."
        )
    if tokenizer.pad_token_id is None:
        source = f" of {tokenizer.name_or_path}" if tokenizer.name_or_path else ""
        raise ValueError(
            f"The tokenizer{source} has no padding token. Set one: `tokenizer.pad_token = tokenizer.eos_token`."
        )
    if expand and tokenizer.mask_token_id is None:
        source = f" of {tokenizer.name_or_path}" if tokenizer.name_or_path else ""
        raise ValueError(f"`query_expansion` needs a mask token, and the tokenizer{source} has none.")

    batch = tokenizer(
        [prefix + text for text in texts],
        truncation=True,
        max_length=length,
        return_special_tokens_mask=True,
        return_attention_mask=False,
    )
    for text, ids in zip(texts, batch["input_ids"], strict=True):
        if not ids:
            raise ValueError(f"The text {text!r} has no tokens, and the tokenizer adds none.")
    return list(zip(batch["input_ids"], batch["special_tokens_mask"], strict=True))


def _padded(
    rows: Sequence[tuple[list[int], list[int]]], role: str, tokenizer: PreTrainedTokenizerBase, config: OpticalConfig
) -> dict[str, torch.Tensor]:
    expand = role == "query" and config.query_expansion
    lengths = torch.tensor([len(ids) for ids, _ in rows])
    width = config.query_length if expand else int(lengths.max())
    pad = tokenizer.pad_token_id
    input_ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows])
    special = torch.tensor([mask + [1] * (width - len(mask)) for _, mask in rows]).bool()
    tokens = torch.arange(width)[None] < lengths[:, None]
    expansion = ~tokens if expand else torch.zeros_like(tokens)
    scored = scored_tokens(input_ids, tokens, special, expansion, role, tokenizer=tokenizer, config=config)
    if expand:
        input_ids = input_ids.masked_fill(expansion, tokenizer.mask_token_id)
    attended = tokens | expansion if config.attend_to_expansion else tokens
    return {"input_ids": input_ids, "attention_mask": attended.long(), "scoring_mask": scored}


def scored_tokens(
    input_ids: torch.Tensor,
    tokens: torch.Tensor,
    special: torch.Tensor,
    expansion: torch.Tensor,
    role: str,
    tokenizer: PreTrainedTokenizerBase,
    config: OpticalConfig,
) -> torch.Tensor:
    """Mark the tokens that are scored in texts that are already tokenised; the rules are those of [`process_texts`].

    Args:
        input_ids (`torch.Tensor` of shape `(batch, tokens)`): the token ids.
        tokens (`torch.Tensor` of shape `(batch, tokens)`, bool): the text's own tokens, special ones included.
        special (`torch.Tensor` of shape `(batch, tokens)`, bool): special tokens, as the tokenizer added them.
        expansion (`torch.Tensor` of shape `(batch, tokens)`, bool): the mask tokens of query expansion.
        role (`str`): `"query"` or `"document"`.
        tokenizer (`PreTrainedTokenizerBase`): the model's tokenizer.
        config ([`OpticalConfig`]): the model's configuration.

    Returns:
        `torch.Tensor`: `(batch, tokens)`, bool.
    """
    prefix = config.query_prefix if role == "query" else config.document_prefix
    content = tokens & ~special
    scored = tokens.clone() if config.score_special_tokens else content.clone()
    if prefix and not config.score_prefix:
        scored &= ~_prefix_tokens(input_ids, content, prefix, tokenizer)
    if role == "document" and config.document_skiplist:
        skipped = torch.tensor(skiplist_ids(config.document_skiplist, tokenizer), device=input_ids.device)
        # Not by torch.isin, which has no form in ONNX.
        scored &= ~(content & (input_ids.unsqueeze(-1) == skipped).any(dim=-1))
    scored |= expansion
    empty = ~scored.any(dim=1, keepdim=True)
    return scored | (empty & tokens)


def _prefix_tokens(
    input_ids: torch.Tensor, content: torch.Tensor, prefix: str, tokenizer: PreTrainedTokenizerBase
) -> torch.Tensor:
    # The space that ends a prefix belongs to the text's first token. Comparing ids, not only counting them, leaves a
    # first token scored in which the tokenizer has merged the prefix's last character with the text.
    ids = tokenizer.encode(prefix.rstrip(), add_special_tokens=False)
    if not ids:
        return torch.zeros_like(content)
    position = content.long().cumsum(dim=1) - 1
    expected = torch.tensor(ids, device=input_ids.device)[position.clamp(0, len(ids) - 1)]
    return content & (position < len(ids)) & (input_ids == expected)


def skiplist_ids(words: Sequence[str] | Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Look up the token ids of `document_skiplist`, in order.

    Args:
        words (`list[str]` or `list[int]`): words that are one token each, or token ids.
        tokenizer (`PreTrainedTokenizerBase`): the model's tokenizer.

    Raises:
        ValueError: if a word is not one token.
    """
    # SentencePiece has "▁." for a mark that stands alone and "." for one behind a word: both are meant.
    ids: set[int] = set()
    for word in words:
        if isinstance(word, int):
            ids.add(word)
            continue
        alone = tokenizer.encode(word, add_special_tokens=False)
        found: set[Any] = {tokenizer.convert_tokens_to_ids(word), *(alone if len(alone) == 1 else [])}
        found -= {None, tokenizer.unk_token_id}
        if not found:
            raise ValueError(f"`document_skiplist` holds {word!r}, which is not one token of the tokenizer.")
        ids |= found
    return sorted(ids)
