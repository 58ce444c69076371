"""What reading a study's file needs: checks of its values, and errors that name the file and the key."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..data.languages import language_code


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
