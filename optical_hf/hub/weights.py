"""The hash of a student's weights, by which what was measured is tied to them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import safe_open

from .files import is_card_file, weight_files

logger = logging.getLogger(__name__)

# What a run writes of the card: each names the weights it was measured on.
_MEASURED = ("README.md", "results.json", ".eval_results/optical_hf.yaml")
_HASH = re.compile(r"\bblake2b:[0-9a-f]{32}\b")


def weights_hash(folder: str | os.PathLike[str]) -> str:
    """Hash the weights of a saved student: names, types, shapes and bytes of its tensors.

    It is the same in however many files they were saved. It takes about a second a gigabyte.

    Args:
        folder (`str` or `Path`): a folder with `model.safetensors`, or with its shards and their index.

    Returns:
        `str`: `"blake2b:"` and 32 hexadecimal digits.

    Raises:
        FileNotFoundError: if a file is missing.
    """
    digest = blake2b(digest_size=16)
    with ExitStack() as stack:
        tensors = {}
        for name in weight_files(folder):
            file = stack.enter_context(safe_open(Path(folder) / name, "pt"))
            tensors.update(dict.fromkeys(file.keys(), file))
        for name in sorted(tensors):
            tensor = tensors[name].get_tensor(name)
            digest.update(f"{name}\n{tensor.dtype}\n{tuple(tensor.shape)}\n".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return f"blake2b:{digest.hexdigest()}"


def named_hashes(path: Path) -> set[str]:
    """Find the hashes of weights that a file of the card names."""
    return set(_HASH.findall(path.read_text(encoding="utf-8", errors="replace")))


def check_measured(folder: str | os.PathLike[str], files: Iterable[str], weights: str) -> None:
    """Raise an error if card or results are those of other weights; warn if they do not say which weights they are of.

    Args:
        folder (`str` or `Path`): a student's folder.
        files (`Iterable[str]`): paths in it; of these, the card's are looked into.
        weights (`str`): the [`weights_hash`] of what is pushed.

    Raises:
        ValueError: naming the file, and what to do.
    """
    cards = [name for name in files if is_card_file(name)]
    silent = []
    for name in cards:
        named = named_hashes(Path(folder) / name)
        if named - {weights}:
            raise ValueError(
                f"{Path(folder) / name} was written of other weights than those that lie there now: a training into "
                "this folder did not come to its end, or the weights were replaced. Nothing was pushed. Train to the "
                f"end, which writes it anew, or delete {', '.join(_MEASURED)}, and push the weights without results."
            )
        if not named and name in _MEASURED:
            silent.append(name)
    if silent and "results.json" in cards:
        logger.warning(
            "%s: which weights it was written of is not said in %s (version 0.1.0 did not), so whether it belongs to "
            "these cannot be checked.", folder, ", nor in ".join(silent),
        )  # fmt: skip
