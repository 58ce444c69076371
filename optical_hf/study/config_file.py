"""What reading a study's file needs: checks of its values, and errors that name the file and the key."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..bounds import MOST, check_count
from ..data.languages import language_code


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

    def count(self, key: str, value: Any, most: int = MOST) -> int:
        """Return `value` if it is a whole number from 1 to `most`."""
        check_count(f"{self.path}: {key}:", value, most)
        return int(value)

    def boolean(self, key: str, value: Any) -> bool:
        """Return `value` if it is true or false."""
        if not isinstance(value, bool):
            raise self(key, f"{value!r} is neither true nor false.")
        return value

    def expand(self, name: str) -> Path:
        """Expand `~` and `$VARIABLES` in a path; a relative one starts from the folder of the file."""
        return self.path.parent / Path(os.path.expandvars(name)).expanduser()


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, and anything else as the only member of one."""
    return value if isinstance(value, list) else [value]
