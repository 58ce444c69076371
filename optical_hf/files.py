"""Files and folders that appear under their name only once they are complete."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4


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
