"""What loading a model needs, whatever the checkpoint: name, encoder without pooler, tokenizer, and checks.

This file travels with every saved model (remote code), so it imports only its siblings.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.file_download import repo_folder_name
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import nn
from transformers import MODEL_MAPPING, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import cached_file

from .configuration_optical import read_json

# What is no damage of a file. All else may be: tokenizers even panic, by an error that is no `Exception`.
_OTHER_ERRORS = (KeyboardInterrupt, SystemExit, GeneratorExit, ImportError, MemoryError, torch.OutOfMemoryError)
_JSON = (
    *("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "artifact.metadata"),
    *("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"),
    *("model.safetensors.index.json", "1_Pooling/config.json", "1_Dense/config.json", "2_Dense/config.json"),
)


@contextmanager
def naming_damage(name_or_path: Any) -> Iterator[None]:
    """Name the model, and the file if one is damaged, in whatever error loading it leads to.

    Raises:
        OSError, ValueError: so named.
    """
    try:
        yield
    except _OTHER_ERRORS:
        raise
    except BaseException as error:
        told = f"{error}" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {error}"
        for path, what in _damaged_files(name_or_path):
            if str(path) not in told:
                raise ValueError(f"{path} is damaged ({what}): save the model or fetch the file again.") from error
        if str(name_or_path) in told and isinstance(error, (OSError, ValueError)):
            raise
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"{name_or_path} cannot be loaded: {told}") from error


def _damaged_files(name_or_path: Any) -> Iterator[tuple[Path, str]]:
    """The files of a model that cannot be read by themselves, and what is wrong with them."""
    try:
        config = cached_file(name_or_path, "config.json", local_files_only=True)
    except (OSError, ValueError):
        return  # no model of this machine
    folder = Path(str(config)).parent
    files = [folder / name for name in (*_JSON, "tokenizer.json")]
    for path in filter(Path.is_file, (*files, *folder.glob("*.safetensors"), *folder.glob("*_Dense/*.safetensors"))):
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, "pt"):  # compares the header with the size of the file
                    pass
            elif path.name == "tokenizer.json":
                Tokenizer.from_file(str(path))
            else:
                read_json(path.parent, path.name, list if path.name == "modules.json" else dict)
        except _OTHER_ERRORS:
            raise
        except BaseException as error:
            yield path, f"{error}".partition("\n")[0].replace(f"{path} ", "")


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
    with naming_damage(name_or_path):
        try:
            return _load_tokenizer(name_or_path, text_config, **options)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"No tokenizer could be read from {name_or_path}: {error}. Save one there, or set `model.tokenizer`."
            ) from error


def _load_tokenizer(name_or_path: Any, text_config: PreTrainedConfig, **options: Any) -> PreTrainedTokenizerBase:
    # With the encoder's configuration, the same class is chosen for a saved model as for the encoder it came from.
    tokenizer = AutoTokenizer.from_pretrained(name_or_path, config=text_config, **options)
    # Without any file, some classes give a tokenizer that knows nothing but its special tokens.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError("its vocabulary is empty")
    return tokenizer


def check_tokenizer(name_or_path: Any, tokenizer: PreTrainedTokenizerBase, backbone: Any) -> None:
    """Refuse a tokenizer that gives tokens which the encoder has no embedding of."""
    rows = backbone.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ValueError(
            f"The tokenizer of {name_or_path} has {len(tokenizer)} tokens, and its encoder {rows} embeddings: they do "
            "not belong together. Resize the encoder (`resize_token_embeddings`), or save the tokenizer it came with."
        )


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
