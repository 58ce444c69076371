"""What a run says about where its models and its bitext came from, without the paths of its machine."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import ModelCard
from transformers.utils import cached_file

from ..data.bitext_readers import find_source

logger = logging.getLogger(__name__)


def checkpoint_origin(name_or_path: str | os.PathLike[str]) -> dict[str, str | None]:
    """Tell the name, the model on the Hub and the licence of a checkpoint.

    Args:
        name_or_path (`str` or `Path`): a local folder or a Hub repository.

    Returns:
        `dict[str, str | None]`: `name`, the Hub name, or of a folder its last part; `base_model`, the Hub name, or of
        a folder what its own card names; `license`, by its own card. `None` for what cannot be found out.
    """
    folder = Path(name_or_path).expanduser()
    local = folder.is_dir()
    path = cached_file(
        str(folder) if local else str(name_or_path),
        "README.md",
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    try:
        card = ModelCard.load(Path(path), ignore_metadata_errors=True).data.to_dict() if path else {}
    except (ValueError, yaml.YAMLError) as error:
        logger.warning("The card of %s cannot be read, so its licence is not known: %s", name_or_path, error)
        card = {}
    base: Any = card.get("base_model")
    return {
        "name": folder.resolve().name if local else str(name_or_path),
        "base_model": (base[0] if isinstance(base, list) and base else base) if local else str(name_or_path),
        "license": card.get("license"),
    }


def source_names(sources: Iterable[str], language: str) -> list[str]:
    """Name sources of bitext for others: datasets as on the Hub, files by their last part.

    Args:
        sources (`Iterable[str]`): as [`load_bitext`] takes them.
        language (`str`): of the translations.

    Example:

        >>> source_names(["/data/ntrex/en-yo.tsv", "Helsinki-NLP/opus-100:en-yo"], "yo")
        ['en-yo.tsv', 'Helsinki-NLP/opus-100:en-yo']
    """
    names, folders = [], []
    for source in sources:
        found = find_source(source, language)
        on_hub = found.kind == "dataset" and not Path(source).expanduser().is_dir()
        paths = [Path(path).resolve() for path in found.paths]
        names.append(source if on_hub else " and ".join(path.name for path in paths))
        folders.append(paths[0].parent.name)
    if len(set(names)) == len(names):
        return names
    return [name if "/" in name else f"{name} in {folder}" for name, folder in zip(names, folders, strict=True)]


def row_source_names(sources: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Name sources of training rows for others, by language pair: files by their last part.

    Args:
        sources (`Mapping[str, Sequence[str]]`): as [`load_training_rows`] takes them.
    """
    return {
        pair: [" and ".join(Path(part).name for part in source.split(",")) for source in many]
        for pair, many in sources.items()
    }


def machine(device: torch.device) -> str:
    """Name the device and the number of threads of a process."""
    on_gpu = device.type == "cuda"
    hardware = torch.cuda.get_device_name(device) if on_gpu else f"{device.type}, {platform.machine()}"
    return f"{hardware}, threads a process: {torch.get_num_threads()}"
