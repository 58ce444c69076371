"""Which files of a student's folder may be pushed, and whether they are whole."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers.dynamic_module_utils import get_relative_import_files

from ..files import pop_digest, read_json

VOCABULARY = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "added_tokens.json", "*.model")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# What a model is loaded from, in the folder itself and in those of the modules that `modules.json` names.
_MODEL = (
    *("config.json", WEIGHTS, "model-*-of-*.safetensors", INDEX),
    *("tokenizer_config.json", "special_tokens_map.json", *VOCABULARY),
    *("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"),
)
RESULTS_CHANGED = "it has changed since the run wrote it; if you changed it yourself, delete its `digest`"
_MODULE = re.compile(r"\d+_\w+")
_CARD = ("README.md", "results.json", ".eval_results/*.yaml")


def is_model_file(path: str) -> bool:
    """Tell whether a file, by its path in the repository, is one that a student is loaded from (its code apart)."""
    folder, _, name = path.rpartition("/")
    return any(fnmatch(name, pattern) for pattern in _MODEL) and (not folder or _MODULE.fullmatch(folder) is not None)


def is_card_file(path: str) -> bool:
    """Tell whether a file, by its path in the repository, is the card or one of its results."""
    return any(fnmatch(path, pattern) for pattern in _CARD)


def card_files(folder: str | os.PathLike[str]) -> list[str]:
    """List the card of a folder and what belongs to it: results.json and .eval_results.

    Raises:
        ValueError: if one of them is a symbolic link, as [`pushed_files`].
    """
    root = Path(folder)
    names = sorted(path.relative_to(root).as_posix() for pattern in _CARD for path in root.glob(pattern))
    _check_own(root, names)
    return names


def pushed_files(folder: str | os.PathLike[str]) -> list[str]:
    """List what of a student's folder is pushed: weights, configuration, tokenizer, code, interop files and card.

    Whatever else lies there (checkpoints, optimizer states, logs, data, weights that are not loaded) is left out,
    since it is not on the list.

    Args:
        folder (`str` or `Path`): where [`~OpticalStudent.save_pretrained`] or the trainer saved it.

    Returns:
        `list[str]`: paths in the folder.

    Raises:
        FileNotFoundError: if there is no such folder, or it lacks the configuration, the tokenizer, the code, or
            weights in safetensors.
        ValueError: if one of the files is a symbolic link, but for those of the Hub's cache; or if a file that names
            others is broken.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    listed = {path.relative_to(root).as_posix() for path in (*root.glob("*"), *root.glob("*_*/*")) if path.is_file()}
    files = {path for path in listed if is_model_file(path)}
    _check_own(root, sorted(files))
    if "config.json" not in files:
        raise FileNotFoundError(f"{folder} has no config.json, so it is not a student's folder.")
    weights = weight_files(root)
    if missing := sorted(weights.keys() - files):
        raise FileNotFoundError(f"{folder} has no {', '.join(missing)}; weights of other formats are not pushed.")
    if not files & {"tokenizer_config.json", *VOCABULARY}:
        raise FileNotFoundError(f"{folder} has no tokenizer: set `model.tokenizer` and save the student again.")
    # What an earlier save left beside the weights that are loaded.
    left = {path for path in files if fnmatch(path, "model*.safetensors*")} - weights.keys()
    files -= left if WEIGHTS in weights else left - {INDEX}
    return sorted({*files, *_code_files(root), *card_files(root)})


def weight_files(folder: str | os.PathLike[str]) -> dict[str, set[str] | None]:
    """Name the files that a folder's weights are loaded from, and the tensors of each if an index lists them.

    Raises:
        ValueError: if the index is broken.
    """
    index = Path(folder) / INDEX
    if (index.with_name(WEIGHTS)).is_file() or not index.is_file():
        return {WEIGHTS: None}
    shards: dict[str, set[str] | None] = {}
    try:
        for tensor, name in _read(index)["weight_map"].items():
            shards[name] = {*(shards.get(name) or ()), tensor}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{index} is broken: it does not list the weights. Save the student again.") from error
    return shards


def check_whole(folder: str | os.PathLike[str], files: Iterable[str]) -> None:
    """Raise an error if a file is cut or broken: weights, tokenizer, JSON, YAML or code.

    Args:
        folder (`str` or `Path`): a student's folder.
        files (`Iterable[str]`): paths in it, of [`pushed_files`].

    Raises:
        ValueError: naming the file.
    """
    expected = weight_files(folder)
    for name in files:
        path = Path(folder) / name
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, "pt") as weights:  # compares the header with the size of the file
                    held = set(weights.keys())
                if (listed := expected.get(name)) is not None and held != listed:
                    raise ValueError(f"its tensors are not those that {INDEX} lists")
            elif path.name == "tokenizer.json":
                Tokenizer.from_file(str(path))
            elif path.suffix == ".json":
                content: Any = read_json(path, list) if path.name == "modules.json" else read_json(path)
                if name == "results.json" and not pop_digest(content):
                    raise ValueError(RESULTS_CHANGED)
            elif path.suffix == ".yaml":
                yaml.safe_load(path.read_text(encoding="utf-8"))
            elif path.suffix == ".py":
                ast.parse(path.read_text(encoding="utf-8"))
            elif path.suffix in (".md", ".txt"):
                path.read_text(encoding="utf-8")
        except OSError:
            raise
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # tokenizers even panic, by an error that is no `Exception`
            told = str(error).partition("\n")[0]  # PyYAML's further lines quote the file
            raise ValueError(
                f"{path} is cut or broken ({told}). Nothing was pushed: save the student or copy the file again."
            ) from error


def _check_own(root: Path, names: Iterable[str]) -> None:
    # A link may lead to anything that the user can read. Only the Hub's cache is made of links: there,
    # snapshots/REVISION/FILE leads to blobs/HASH.
    top = root.resolve()
    blobs = top.parents[1] / "blobs" if top.parent.name == "snapshots" else None
    for name in names:
        path = (root / name).resolve()
        if (path != top / name and path.parent != blobs) or not path.is_file():
            leads = f": a link leads to {path}" if path != top / name else ""
            raise ValueError(
                f"{root / name} is not a file of this folder{leads}. Nothing was pushed: put a copy in its place, or "
                "take it out."
            )


def _read(path: Path, kind: Any = dict) -> Any:
    try:
        return read_json(path, kind)
    except ValueError as error:
        raise ValueError(f"{path} is cut or broken ({error}). Save the student again.") from error


def _code_files(root: Path) -> Iterator[str]:
    # Of the classes that configuration, tokenizer and modules name, and of what those import from beside them.
    classes: list[Any] = []
    for path in (root / name for name in ("config.json", "tokenizer_config.json", "modules.json")):
        if not path.is_file():
            continue
        try:
            if path.name == "modules.json":
                classes += [module["type"] for module in _read(path, list)]
            else:
                for value in _read(path).get("auto_map", {}).values():
                    classes += value if isinstance(value, list) else [value]
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not as a student's is ({error!r}). Save the student again.") from error
    modules = {name.split(".")[0] for name in classes if name and name.count(".") == 1 and "--" not in name}
    for module in (root / f"{name}.py" for name in sorted(modules)):
        try:
            names = [os.path.relpath(path, root) for path in (str(module), *get_relative_import_files(module))]
        except FileNotFoundError as error:
            missing = Path(error.filename).name
            raise FileNotFoundError(f"{root} has no {missing}, which a student needs. Save it again.") from error
        _check_own(root, names)
        yield from names
