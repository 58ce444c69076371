"""YAML files of settings, read as YAML 1.2 says."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

_MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema. In 1.1, which PyYAML reads, Norwegian (`no`) is false and `5e-5` a string."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        counts = Counter(str(key.value) for key, _ in node.value)
        if twice := [key for key, count in counts.items() if count > 1]:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice[0]!r} is there twice", node.start_mark
            )
        return {str(key): value for key, value in super().construct_mapping(node, deep).items()}

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level >= 100:  # the time grows with the square of the depth
            raise yaml.scanner.ScannerError(None, None, "brackets are nested too deeply", self.get_mark())
        super().fetch_flow_collection_start(token)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML 1.2 mapping; all keys become strings.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no YAML, not a mapping, or has a key twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    # A tag, such as `!!int`, leads to errors of other kinds where the value is another.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: write `name: value` lines.")
    _check_size(settings, path)
    return settings


def _check_size(settings: Any, path: Path) -> None:
    """Refuse aliases within aliases that would fill the memory once they are written out."""
    waiting, count = [settings], 0
    while waiting:
        value, count = waiting.pop(), count + 1
        if count > _MOST_VALUES:
            raise ValueError(f"{path} holds more than {_MOST_VALUES} values, with those that its aliases repeat.")
        waiting += (
            value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple, set)) else ()
        )
