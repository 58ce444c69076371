"""The JSON files of a study's folder. Each holds a digest of itself, so that no damaged one is taken for a result."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..files import pop_digest, read_json, with_digest, write_json


def write_record(folder: Path, name: str, record: Mapping[str, Any], indent: int | None = 2) -> None:
    """Write a record, with a digest of its content and of its name: two files cannot change places unseen.

    Args:
        folder (`Path`): of the study's output.
        name (`str`): the file in it, such as `arms/first-ot-1/arm.json`.
        record (`Mapping[str, Any]`): what JSON can hold.
        indent (`int`, *optional*, defaults to 2): of the JSON; none is best for long lists of numbers.
    """
    write_json(folder / name, with_digest(record, name), indent=indent)


def read_record(folder: Path, name: str, parts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read a record. One without a digest, as 0.1.0 wrote them, is taken as it is.

    Args:
        folder (`Path`): of the study's output.
        name (`str`): the file in it.
        parts (`Mapping[str, type]`, *optional*): what it has to hold, by key: a type, or a union of types.

    Returns:
        `dict`: what was given to [`write_record`].

    Raises:
        ValueError: naming the file and what to do, if it cannot be read, lacks a part, or has changed.
    """
    try:
        content = read_json(folder / name)
    except (OSError, ValueError) as error:
        raise damaged(folder, name, f"cannot be read ({error})") from error
    if not pop_digest(content, name):
        raise damaged(folder, name, "has changed since it was written")
    for part, kind in (parts or {}).items():
        if part not in content:
            raise damaged(folder, name, f"has no {part!r}")
        if not isinstance(content[part], kind):
            raise damaged(folder, name, f"has {content[part]!r} as {part!r}")
    return content


def damaged(folder: Path, name: str, what: str) -> ValueError:
    """Make the error that names a damaged file of a study, and says what to do about it.

    Args:
        folder (`Path`): of the study's output.
        name (`str`): the file in it.
        what (`str`): is wrong with it.
    """
    remedy = "remove the arm's folder and run it again"
    if not name.startswith("arms/"):
        remedy = "if the study's file, bitext and questions are what they were, remove this file and run it again"
    return ValueError(f"{folder / name} {what}: {remedy}.")


def file_digest(path: Path) -> str:
    """Hash the content of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()


def folder_digests(folder: Path) -> dict[str, str]:
    """Hash the files of a model's folder, by their names in it; texts for people, `.md`, may change."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md")
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}
