"""What loading a model needs, whatever the checkpoint: name, encoder without pooler, tokenizer, and checks.

This file travels with every saved model (remote code), so it imports only its siblings.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.file_download import repo_folder_name
from torch import nn
from transformers import MODEL_MAPPING, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase


def check_name(name_or_path: str | os.PathLike[str]) -> None:
    """Refuse what is neither a folder nor a model of the Hub or of its cache, by one request at most.

    Loading would ask for one file after another, and wait for a Hub that cannot be reached half a minute for each.

    Raises:
        FileNotFoundError: saying which of the two it could have been.
    """
    name = os.fspath(name_or_path)
    if os.path.isdir(name):
        return
    if name.startswith((".", "/")) or name.count("/") > 1:
        raise FileNotFoundError(f"There is no folder {name}.")
    try:
        if (Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model") / "snapshots").is_dir():
            return
        HfApi().model_info(name, timeout=10)
    except RepositoryNotFoundError:
        why = "the Hub shows no model of this name. Check the spelling; if it is private, log in (`hf auth login`)"
    except HFValidationError:
        why = "no model of the Hub can have this name"
    except HfHubHTTPError:
        return  # a Hub in trouble: loading tries again
    except Exception as error:  # of whichever package connects
        why = f"the Hub, where a model may have this name, cannot be reached ({error})"
    else:
        return
    raise FileNotFoundError(f"There is no folder {name}, and {why}.")


def no_pooler(text_config: PreTrainedConfig) -> dict[str, bool]:
    """The argument that leaves out an encoder's pooler, if it has one."""
    # An unused pooler would be a parameter without gradient, which distributed training rejects.
    if type(text_config) not in MODEL_MAPPING:
        return {}
    classes: Any = MODEL_MAPPING[type(text_config)]
    takes = inspect.signature(classes[0] if isinstance(classes, tuple) else classes).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in takes else {}


def load_tokenizer(name_or_path: Any, text_config: PreTrainedConfig, **options: Any) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a checkpoint, or say that there is none."""
    try:
        # With the encoder's configuration, the same class is chosen for a saved model as for the encoder it came from.
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, config=text_config, **options)
        # Without any file, some classes give a tokenizer that knows nothing but its special tokens.
        if len(tokenizer) <= len(tokenizer.all_special_ids):
            raise ValueError("its vocabulary is empty")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"No tokenizer could be read from {name_or_path}: {error}. Save one there, or set `model.tokenizer`."
        ) from error
    return tokenizer


def check_projection(name_or_path: Any, size: int | None, overrides: dict[str, Any]) -> None:
    """Refuse a `projection_dim` that is not the checkpoint's."""
    wanted = overrides.get("projection_dim", size)
    if wanted != size:
        raise ValueError(f"`projection_dim` is {wanted}, but the projection of {name_or_path} has size {size}.")


def check_complete(name_or_path: Any, missing: Iterable[str]) -> None:
    """Refuse a checkpoint that lacks weights."""
    if names := sorted(missing):
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise ValueError(f"{name_or_path} lacks weights of the encoder: {', '.join(names[:5])}{more}.")


def longest_input(backbone: nn.Module) -> int | None:
    """The most tokens that an encoder can read; `None` if it has no table of positions."""
    for name, module in backbone.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, nn.Embedding):
            # RoBERTa and its kin count positions from behind the padding index.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None


def check_lengths(name_or_path: Any, config: PreTrainedConfig, backbone: nn.Module) -> None:
    """Refuse a `query_length` or `document_length` beyond what the encoder can read."""
    longest = longest_input(backbone)
    for name in ("query_length", "document_length"):
        length = getattr(config, name)
        if longest is not None and length > longest:
            raise ValueError(f"`{name}` is {length}, but {name_or_path} reads at most {longest} tokens.")
