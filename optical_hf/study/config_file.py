"""The YAML of a study's file, and errors that name the file and the key."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
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
    """Checks what stands in a file, and makes errors that name the file and the key.

    `raise error("methods.ot.loss", "there is no ...")` is for what only the caller can check.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, key: str, message: str) -> ValueError:
        return ValueError(f"{self.path}: {key}: {message}")

    def missing(self, key: str, message: str) -> FileNotFoundError:
        return FileNotFoundError(f"{self.path}: {key}: {message}")

    def keys(self, key: str, given: Mapping[str, Any], known: Collection[str]) -> None:
        """Refuse keys that are not `known`, and name the nearest that are."""
        for name in given:
            if name not in known:
                near = get_close_matches(name, known, n=3)
                hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(known)[:20])}."
                raise self(f"{key}.{name}" if key else name, f"there is no such key; {hint}")

    def mapping(self, key: str, value: Any, known: Collection[str] | None = None) -> dict[str, Any]:
        """Return `value` if it is a mapping, with no other keys than the `known` if these are given."""
        if not isinstance(value, dict):
            raise self(key, f"write `name: value` lines, not {value!r}.")
        if known is not None:
            self.keys(key, value, known)
        return value

    def languages(self, key: str, value: Any) -> Iterator[tuple[str, str, Any]]:
        """Iterate over a mapping by language: the code in its usual form, the key in the file, and the value."""
        codes = set()
        for name, inner in self.mapping(key, value).items():
            code = self.language(f"{key}.{name}", name)
            if code in codes:
                raise self(f"{key}.{name}", f"'{code}' is there twice.")
            codes.add(code)
            yield code, f"{key}.{name}", inner

    def language(self, key: str, code: Any) -> str:
        """Return a language code in its usual form."""
        try:
            return language_code(str(code))
        except ValueError as error:
            raise self(key, str(error)) from None

    def name(self, group: str, name: str, taken: Collection[str] = ()) -> str:
        """Return the key of a name in a group, `methods.ot`, if the name may be part of a file's name."""
        key = f"{group}.{name}"
        if not re.fullmatch(r"\w[\w.]*", name, re.ASCII):
            raise self(key, "a name may have letters, digits, underscores and, not in front, dots.")
        if name in taken:
            raise self(key, f"the name {name!r} is taken; choose another.")
        return key

    def count(self, key: str, value: Any) -> int:
        """Return `value` if it is a whole number above 0."""
        if type(value) is not int or value < 1:
            raise self(key, f"{value!r} is not a whole number above 0.")
        return value

    def boolean(self, key: str, value: Any) -> bool:
        """Return `value` if it is true or false."""
        if not isinstance(value, bool):
            raise self(key, f"{value!r} is neither true nor false.")
        return value

    def expand(self, name: str) -> Path:
        """Expand `~` and `$VARIABLES` in a path; a relative one starts from the folder of the file."""
        return self.path.parent / Path(os.path.expandvars(name)).expanduser()


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


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, and anything else as the only member of one."""
    return value if isinstance(value, list) else [value]
