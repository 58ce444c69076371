"""The saved folder as a `MultiVectorEncoder` of sentence-transformers 6.2: what its files say, and which tokens count.

    MultiVectorEncoder(folder_or_repository, trust_remote_code=True)

The encoder is stored once: sentence-transformers calls the model of this folder itself, and [`ScoringMask`] leaves
out the tokens that [`OpticalConfig`] does not score, which no module of its own can do (a prefix is known by its
place, not by its tokens). This file travels with every saved model (remote code), so it imports only its siblings.
"""

from __future__ import annotations

import json
import os
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from .configuration_optical import OpticalConfig
from .processing_optical import scored_tokens

GENERAL_FILE = "config_sentence_transformers.json"


def save_multi_vector_files(folder: str | os.PathLike[str], config: OpticalConfig) -> None:
    """Write the three files by which sentence-transformers loads a saved model as a `MultiVectorEncoder`.

    Args:
        folder (`str` or `Path`): where the model is saved.
        config ([`OpticalConfig`]): its configuration.
    """
    transformer: dict[str, Any] = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": "token_vectors"}},
        "module_output_name": "token_embeddings",
        "processing_kwargs": {"text": {"padding_side": "right", "return_special_tokens_mask": True}},
        "unpad_inputs": False,
        "query_length": config.query_length,
        "document_length": config.document_length,
    }
    if config.query_expansion:
        expansion = {"strategy": "fixed", "attend": config.attend_to_expansion, "length": config.query_length}
        transformer["query_expansion"] = expansion
    general = {
        "model_type": "MultiVectorEncoder",
        "similarity_fn_name": "maxsim",
        **_written_by_sentence_transformers(folder),
        "prompts": {"query": config.query_prefix, "document": config.document_prefix},
    }
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        # Without settings of its own, so there is no such folder: it adds the mask tokens of query expansion.
        {
            "idx": 1,
            "name": "1",
            "path": "1_MultiVectorMask",
            "type": "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
        },
        {"idx": 2, "name": "2", "path": "", "type": f"multi_vector_optical.{ScoringMask.__name__}"},
    ]
    files = {"sentence_bert_config.json": transformer, GENERAL_FILE: general, "modules.json": modules}
    for name, value in files.items():
        # Under a temporary name until it is whole, as everywhere in the package, which this file must not import.
        path = os.path.join(folder, name)
        with open(f"{path}.partial", "w", encoding="utf-8") as lines:
            json.dump(value, lines, indent=2, ensure_ascii=False)
            lines.write("\n")
        os.replace(f"{path}.partial", path)


class ScoringMask(nn.Module):
    """A sentence-transformers module that leaves only the scored tokens in the mask: see [`scored_tokens`].

    It is no subclass of sentence-transformers' `Module`, so that models are saved and loaded without that package.

    Args:
        config ([`OpticalConfig`]): the model's configuration.
        tokenizer (`PreTrainedTokenizerBase`): the model's tokenizer.
    """

    # What sentence-transformers passes from `encode_query` and `encode_document`.
    forward_kwargs = {"task"}

    def __init__(self, config: OpticalConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer

    def forward(self, features: dict[str, Any], task: str | None = None) -> dict[str, Any]:
        """Narrow `features["attention_mask"]`, which by now holds the text's tokens and those of query expansion."""
        mask = features["attention_mask"].bool()
        expansion = features.get("query_expansion_positions")
        expansion = torch.zeros_like(mask) if expansion is None else expansion.bool()
        features["attention_mask"] = scored_tokens(
            features["input_ids"],
            tokens=mask & ~expansion,
            special=features["special_tokens_mask"].bool(),
            expansion=expansion,
            role="query" if task == "query" else "document",
            tokenizer=self.tokenizer,
            config=self.config,
        )
        return features

    def get_embedding_dimension(self) -> int:
        """Size of a token vector."""
        return self.config.output_dim

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration and the tokenizer are saved with the model."""

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> ScoringMask:
        """Read the configuration and the tokenizer of the model."""
        where: dict[str, Any] = {"token": token, "cache_dir": cache_folder, "revision": revision}
        where["local_files_only"] = local_files_only
        config = OpticalConfig.from_pretrained(model_name_or_path, **where)
        return cls(config, AutoTokenizer.from_pretrained(model_name_or_path, config=config.text_config, **where))


def _written_by_sentence_transformers(folder: str | os.PathLike[str]) -> dict[str, Any]:
    # Its own `save_pretrained` writes this file first and the model after it; what else it says has to stay.
    try:
        with open(os.path.join(folder, GENERAL_FILE), encoding="utf-8") as lines:
            found = json.load(lines)
    except (OSError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) and found.get("model_type") == "MultiVectorEncoder" else {}
