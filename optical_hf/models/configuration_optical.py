"""The configuration of the teacher and the student.

This file travels with every saved model (remote code), so it imports nothing from the rest of the package.
"""

from __future__ import annotations

import json
import os
from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import cached_file

POOLINGS = ("mean", "cls")


class OpticalConfig(PreTrainedConfig):
    """Configuration of [`OpticalTeacher`] and [`OpticalStudent`]: an encoder, and how texts become token vectors.

    Args:
        text_config (`PreTrainedConfig` or `dict`, *optional*):
            Configuration of the encoder. Defaults to an `XLMRobertaConfig`.
        projection_dim (`int`, *optional*):
            Size of the token vectors after a linear projection without bias. `None` keeps the encoder's size.
        pooling (`str`, *optional*, defaults to `"mean"`):
            How the single vector of a text is made: `"mean"` over all attended tokens, or `"cls"`, the first token.
        query_prefix (`str`, *optional*, defaults to `""`):
            Put before every query, as in `"query: "` for E5.
        document_prefix (`str`, *optional*, defaults to `""`):
            Put before every document, as in `"passage: "` for E5.
        query_length (`int`, *optional*, defaults to 64):
            Longest query in tokens, special and prefix tokens included.
        document_length (`int`, *optional*, defaults to 256):
            Longest document in tokens, special and prefix tokens included.
        query_expansion (`bool`, *optional*, defaults to `False`):
            Fill every query up to `query_length` with mask tokens that are scored (ColBERT, arXiv 2004.12832, 3.2).
        attend_to_expansion (`bool`, *optional*, defaults to `False`):
            Whether the other tokens attend to these mask tokens.
        score_special_tokens (`bool`, *optional*, defaults to `False`):
            Whether the tokenizer's special tokens (`[CLS]`, `</s>`) take part in scoring and distillation.
        score_prefix (`bool`, *optional*, defaults to `False`):
            Whether the tokens of the prefix do.
        document_skiplist (`list[str]` or `list[int]`, *optional*):
            Words, usually punctuation, whose tokens are left out of document scoring. Each has to be one token.
            Integers are token ids.

    Raises:
        ValueError: if a length or `projection_dim` is out of bounds, `pooling` is unknown, or another argument is of
            another type than it should be.

    Example:

    ```python
    >>> from optical_hf import OpticalConfig
    >>> config = OpticalConfig(query_prefix="query: ", document_prefix="passage: ", projection_dim=128)
    >>> config.output_dim
    128
    ```
    """

    model_type = "optical"
    sub_configs = {"text_config": AutoConfig}

    def __init__(
        self,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        projection_dim: int | None = None,
        pooling: str = "mean",
        query_prefix: str = "",
        document_prefix: str = "",
        query_length: int = 64,
        document_length: int = 256,
        query_expansion: bool = False,
        attend_to_expansion: bool = False,
        score_special_tokens: bool = False,
        score_prefix: bool = False,
        document_skiplist: list[str] | list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        if text_config is None:
            text_config = AutoConfig.for_model("xlm-roberta")
        elif not isinstance(text_config, PreTrainedConfig):
            if not isinstance(text_config, dict) or not isinstance(text_config.get("model_type"), str):
                raise ValueError(
                    f"`text_config` is {text_config!r}; it has to be an encoder's, with its `model_type`."
                )
            text_config = AutoConfig.for_model(**text_config)
        if pooling not in POOLINGS:
            raise ValueError(f"`pooling` is {pooling!r}; it has to be one of {', '.join(map(repr, POOLINGS))}.")
        lengths = {"query_length": query_length, "document_length": document_length, "projection_dim": projection_dim}
        for name, value in lengths.items():
            optional = name == "projection_dim" and value is None
            if not optional and (not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 10**6):
                raise ValueError(f"`{name}` is {value!r}; it has to be a whole number from 1 to 1,000,000.")
        texts = {"query_prefix": query_prefix, "document_prefix": document_prefix}
        flags = {"query_expansion": query_expansion, "attend_to_expansion": attend_to_expansion}
        flags |= {"score_special_tokens": score_special_tokens, "score_prefix": score_prefix}
        for name, given in {**texts, **flags}.items():
            if not isinstance(given, str if name in texts else bool):
                kind = "a string" if name in texts else "true or false"
                raise ValueError(f"`{name}` is {given!r}; it has to be {kind}.")
        if isinstance(document_skiplist, str):
            raise ValueError(f"`document_skiplist` is the string {document_skiplist!r}; it has to be a list of words.")
        if not all(isinstance(word, (str, int)) for word in document_skiplist or ()):
            raise ValueError(
                f"`document_skiplist` is {document_skiplist!r}; it has to be a list of words or token ids."
            )
        self.text_config = text_config
        self.projection_dim = projection_dim
        self.pooling = pooling
        self.query_prefix = query_prefix
        self.document_prefix = document_prefix
        self.query_length = query_length
        self.document_length = document_length
        self.query_expansion = query_expansion
        self.attend_to_expansion = attend_to_expansion
        self.score_special_tokens = score_special_tokens
        self.score_prefix = score_prefix
        self.document_skiplist: list[Any] = list(document_skiplist or [])
        super().__init__(**kwargs)

    def to_diff_dict(self) -> dict[str, Any]:
        """Return what is saved: not where the encoder came from, which is often a path of this machine."""
        saved = super().to_diff_dict()
        saved["text_config"].pop("_name_or_path", None)
        return saved

    @property
    def hidden_size(self) -> int:
        """`int`: size of the encoder's states (DeepSpeed asks for it)."""
        return self.text_config.hidden_size

    @property
    def output_dim(self) -> int:
        """`int`: size of a token vector."""
        return self.projection_dim or self.hidden_size


def read_json(name_or_path: str | os.PathLike[str], file: str, kind: type = dict) -> Any | None:
    """Read an object of JSON, or a list if that is the `kind`, of a local folder or a Hub repository.

    `None` if it has no such file.
    """
    path = cached_file(name_or_path, file, _raise_exceptions_for_missing_entries=False)
    if path is None:
        return None
    with open(path, encoding="utf-8") as lines:
        try:
            value = json.load(lines)
        except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, too many digits, nested too deeply
            raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, kind):
        wanted = "an object" if kind is dict else "a list"
        raise ValueError(f"{path} holds JSON of another kind: a {type(value).__name__}, not {wanted}.")
    return value
