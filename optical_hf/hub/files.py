"""Which files of a student's folder may be pushed, and what must not stand in them."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import get_token
from transformers.dynamic_module_utils import get_relative_import_files

_VOCABULARY = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "added_tokens.json", "*.model")
# What a model is loaded from, in the folder itself and in those of the modules that `modules.json` names.
_MODEL = (
    *("config.json", "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    *("tokenizer_config.json", "special_tokens_map.json", *_VOCABULARY),
    *("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"),
)
_MODULE = re.compile(r"\d+_\w+")
_CARD = ("README.md", "results.json", ".eval_results/*.yaml")

_SECRET_NAMES = re.compile(r"TOKEN|SECRET|PASSWORD|API_?KEY")
_HUB_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}")
# At least two parts; behind a word, a colon or a slash it belongs to an address or a name on the Hub.
_PATH = re.compile(r"(?<![\w.:/<>~-])(?:/[^\s/\"'`<>|,;:()\[\]{}]+){2,}")


def is_model_file(path: str) -> bool:
    """Tell whether a file, by its path in the repository, is one that a student is loaded from (its code apart)."""
    folder, _, name = path.rpartition("/")
    return any(fnmatch(name, one) for one in _MODEL) and (not folder or _MODULE.fullmatch(folder) is not None)


def card_files(folder: str | os.PathLike[str]) -> list[str]:
    """List the card of a folder and what belongs to it: results.json and .eval_results."""
    return sorted(path.relative_to(folder).as_posix() for one in _CARD for path in Path(folder).glob(one))


def pushed_files(folder: str | os.PathLike[str]) -> list[str]:
    """List what of a student's folder is pushed: weights, configuration, tokenizer, code, interop files and card.

    Whatever else lies there (checkpoints, optimizer states, logs, data) is left out, since it is not on the list.

    Args:
        folder (`str` or `Path`): where [`~OpticalStudent.save_pretrained`] or the trainer saved it.

    Returns:
        `list[str]`: paths in the folder.

    Raises:
        FileNotFoundError: if the folder has no configuration, no tokenizer, or not all of its weights in safetensors.
    """
    root = Path(folder)
    found = {path.relative_to(root).as_posix() for path in (*root.glob("*"), *root.glob("*_*/*")) if path.is_file()}
    files = {path for path in found if is_model_file(path)}
    if "config.json" not in files:
        raise FileNotFoundError(f"{folder} has no config.json, so it is not a student's folder.")
    weights = {"model.safetensors"}
    if "model.safetensors" not in files and (index := root / "model.safetensors.index.json").is_file():
        weights = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    if missing := sorted(weights - files):
        raise FileNotFoundError(f"{folder} has no {', '.join(missing)}; weights of other formats are not pushed.")
    if not files & {"tokenizer_config.json", *_VOCABULARY}:
        raise FileNotFoundError(f"{folder} has no tokenizer: set `model.tokenizer` and save the student again.")
    return sorted({*files, *_code_files(root), *card_files(root)})


def _code_files(root: Path) -> Iterator[str]:
    # Of the classes that configuration, tokenizer and modules name, and of what those import from beside them.
    classes: list[Any] = []
    for name in ("config.json", "tokenizer_config.json"):
        for value in (_read(root / name) or {}).get("auto_map", {}).values():
            classes += value if isinstance(value, list) else [value]
    classes += [module["type"] for module in _read(root / "modules.json") or []]
    here = {one.split(".")[0] for one in classes if one and one.count(".") == 1 and "--" not in one}
    for module in (root / f"{name}.py" for name in here):
        for path in (module, *map(Path, get_relative_import_files(module))):
            yield path.relative_to(root).as_posix()


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def check_private(folder: str | os.PathLike[str], files: list[str], token: str | None = None) -> None:
    """Raise an error if a file holds a token or password of the environment, or a path of this machine.

    Args:
        folder (`str` or `Path`): the folder.
        files (`list[str]`): paths in it; weights are not looked into.
        token (`str`, *optional*): the token that is used, beside that of the login and those in the environment.

    Raises:
        ValueError: naming file and place, not the secret.
    """
    secrets = {f"the value of ${name}": value for name, value in os.environ.items() if _SECRET_NAMES.search(name)}
    secrets |= {"the Hub token of your login": get_token() or "", "the token": token or ""}
    for name in files:
        path = Path(folder) / name
        if path.suffix == ".safetensors":
            continue
        content = path.read_bytes()
        held = [what for what, value in secrets.items() if len(value) >= 12 and value.encode() in content]
        if held or _HUB_TOKEN.search(content):
            raise ValueError(
                f"{path} holds {held[0] if held else 'a Hub token'}. It was not pushed: take it out first."
            )
        if any(fnmatch(path.name, one) for one in _VOCABULARY):
            continue
        for where, text in _texts(path, content):
            whole = [text] if os.path.isabs(text) else []
            for one in (*whole, *_PATH.findall(text)):
                if _is_of_this_machine(one):
                    raise ValueError(
                        f"{path}, {where}, names {one}, a path of this machine. It was not pushed: write the last "
                        "part of the path or, in config.json, load the student and save it again."
                    )


def _is_of_this_machine(path: str) -> bool:
    homes = [os.path.expanduser("~"), os.getcwd(), tempfile.gettempdir()]
    below = any(path == home or path.startswith(home + os.sep) for home in homes if len(home) > 1)
    return below or (len(Path(path).parts) > 2 and os.path.exists(path))


def _texts(path: Path, content: bytes) -> Iterator[tuple[str, str]]:
    text = content.decode("utf-8", errors="replace")
    if path.suffix == ".json":
        yield from _strings("", json.loads(text))
    else:
        yield from ((f"line {number}", line) for number, line in enumerate(text.splitlines(), 1))


def _strings(where: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where.lstrip("."), value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from ((where.lstrip("."), key), *_strings(f"{where}.{key}", one))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _strings(f"{where}[{index}]", one)
