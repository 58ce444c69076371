"""Files that appear only once they are complete."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text in UTF-8, under a temporary name until it is whole."""
    partial = Path(f"{os.fspath(path)}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: str | os.PathLike[str], value: Any, indent: int | None = None) -> None:
    """Write a value as JSON in UTF-8, under a temporary name until it is whole."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")
