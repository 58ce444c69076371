"""The YAML of a study's file, and errors that name the file and the key."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from ..data.languages import language_code


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema. In 1.1, which PyYAML reads, Norwegian (`no`) is false and `5e-5` a string."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice[0]!r} is there twice", node.start_mark
            )
        return {str(key): value for key, value in super().construct_mapping(node, deep).items()}


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


class FileErrors:
    """Makes errors that name the file and the key: `raise error("methods.ot.loss", "there is no ...")`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, key: str, message: str) -> ValueError:
        return ValueError(f"{self.path}: {key}: {message}")

    def mapping(self, key: str, value: Any) -> dict[str, Any]:
        """Return `value` if it is a mapping."""
        if not isinstance(value, dict):
            raise self(key, f"write `name: value` lines, not {value!r}.")
        return value

    def language(self, key: str, code: Any) -> str:
        """Return a language code in its usual form."""
        try:
            return language_code(str(code))
        except ValueError as error:
            raise self(key, str(error)) from None

    def name(self, key: str, name: str, taken: Collection[str] = ()) -> str:
        """Return a name that may be part of a file's name."""
        if not re.fullmatch(r"\w[\w.]*", name, re.ASCII):
            raise self(key, "names are made of letters, digits and underscores.")
        if name in taken:
            raise self(key, f"the name {name!r} is taken.")
        return name


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML 1.2 mapping; all keys become strings.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no YAML, not a mapping, or has a key twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: write `name: value` lines.")
    return config


def check_keys(given: Mapping[str, Any], known: Collection[str], error: FileErrors, where: str = "") -> None:
    """Refuse keys that are not `known`, with the nearest that is."""
    for key in given:
        if key not in known:
            near = get_close_matches(key, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(known)[:20])}."
            raise error(f"{where}.{key}" if where else key, f"there is no such key; {hint}")


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, and anything else as the only member of one."""
    return value if isinstance(value, list) else [value]


def expand(name: str, path: Path) -> Path:
    """Expand `~` and `$VARIABLES`; what is relative starts from the folder of `path`."""
    return path.parent / Path(os.path.expandvars(name)).expanduser()


def positive(value: Any, key: str, error: FileErrors) -> int:
    """Return `value` if it is a whole number above 0."""
    if type(value) is not int or value < 1:
        raise error(key, f"{value!r} is not a whole number above 0.")
    return value
