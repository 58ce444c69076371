"""Files and folders that appear under their name only once they are complete, and tell when they have changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import xxhash

DIGEST = "digest"

Value = TypeVar("Value", dict[str, Any], list[Any])


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`: what is written there takes its place if the block ends without an error.

    The name is another at every call, so that several processes and machines may write one path: the last one stays.
    The temporary path may be made a file or a folder; a folder takes the place of nothing or of an empty folder only.

    Args:
        path (`str` or `Path`): where the file or folder is going to be. Its parent has to be there.

    Example:

    ```python
    >>> with replacing("run.json") as partial:
    ...     partial.write_text("{}")
    ```
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{uuid4().hex[:12]}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text in UTF-8, under a temporary name until it is whole."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any, indent: int | None = None) -> None:
    """Write a value as JSON in UTF-8, under a temporary name until it is whole."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike[str], kind: type[Value] = dict) -> Value:  # type: ignore[assignment]
    """Read an object of JSON, or a list if that is the `kind`, from a file in UTF-8.

    Raises:
        OSError: if the file cannot be read.
        ValueError: naming the file, if it holds no such JSON.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, too many digits, nested too deeply
        raise ValueError(f"{path} is no JSON, or is cut off or damaged ({error}).") from error
    if not isinstance(value, kind):
        wanted = "an object" if kind is dict else "a list"
        raise ValueError(f"{path} holds JSON of another kind: a {type(value).__name__}, not {wanted}.")
    return value


def with_digest(record: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """Add to a record, under `digest`, a hash of its content, and of a name where two files must not change places."""
    content = json.loads(json.dumps(record))
    return {**content, DIGEST: _digest(name, content)}


def pop_digest(content: dict[str, Any], name: str = "") -> bool:
    """Take the hash of [`with_digest`] out of a record. False if the content is another; true if there was none."""
    digest = content.pop(DIGEST, None)
    return digest is None or digest == _digest(name, content)


def _digest(name: str, content: Mapping[str, Any]) -> str:
    written = json.dumps([name, content], sort_keys=True)
    return blake2b(written.encode(), digest_size=16).hexdigest()


def checksums(folder: str | os.PathLike[str]) -> dict[str, str | None]:
    """Hash the files of a folder against damage (XXH3), by their paths in it. They are not held in memory."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _checksum(path) for path in files}


def changed_files(folder: str | os.PathLike[str], sums: Mapping[str, str | None]) -> list[str]:
    """List the files of [`checksums`] that are not there any more, or are not what they were."""
    return [name for name, checksum in sums.items() if _checksum(Path(folder) / name) != checksum]


def _checksum(path: Path) -> str | None:
    checksum = xxhash.xxh3_64()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                checksum.update(block)
    except OSError:
        return None
    return checksum.hexdigest()
