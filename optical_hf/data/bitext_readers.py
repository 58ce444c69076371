"""Readers of bitext files and datasets: each yields (English, translation) pairs as they are written there.

A line that cannot be read never stops the reading by itself: it is noted in `MalformedLines`, so that one error names
all of them.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .bitext_datasets import read_dataset
from .bitext_files import FORMATS, file_kind, plain_name, read_moses, read_text_file
from .bitext_rows import choose_tag, tag_language
from .malformed_lines import MalformedLines
from .tmx import read_tmx

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


class Source(NamedTuple):
    """Where pairs come from: `kind` is `tsv`, `jsonl`, `tmx`, `moses` (two paths) or `dataset`."""

    kind: str
    paths: tuple[str, ...]


def find_source(source: str | Path, language: str) -> Source:
    """Tell what kind of bitext `source` is, without reading it.

    Args:
        source (`str` or `Path`): a path, two paths joined by a comma, a prefix, or the Hub name of a dataset.
        language (`str`): the language of the translations, as `language_code` gives it.

    Raises:
        FileNotFoundError: if there is no such file and it cannot be the Hub name of a dataset.
        ValueError: if the format is unknown, or two files go as well as each other.
    """
    name = str(source)
    path = Path(name).expanduser()
    if path.is_dir():
        return Source("dataset", (str(path),))
    if path.is_file():
        if (kind := file_kind(path.name)) in ("tsv", "jsonl", "tmx"):
            return Source(kind, (str(path),))
        raise ValueError(f"{name}: not a known bitext format; {FORMATS}.")
    if "," in name:
        english, translation = (Path(part.strip()).expanduser() for part in name.split(",", 1))
        for side in (english, translation):
            if not side.is_file():
                raise FileNotFoundError(f"{side}: no such file, given as one side of the bitext '{name}'.")
        if tag_language(file_kind(translation.name)) == "en" and tag_language(file_kind(english.name)) == language:
            raise ValueError(f"'{name}' names the English file second; write '{translation},{english}'.")
        return Source("moses", (str(english), str(translation)))
    if sides := _find_sides(path, language):
        return Source("moses", sides)
    # A path into a folder that is here, or to a file by its ending, is a path misspelt and not a dataset of the Hub.
    looks_local = Path(path.parts[0]).exists() if path.parts else True
    looks_local = looks_local or re.search(r"\.(tsv|jsonl|tmx|gz|bz2|xz|json|csv|txt)$", name) is not None
    if looks_local or not _HUB_NAME.fullmatch(name):
        raise FileNotFoundError(f"{name}: no such file or folder (bitext of '{language}'); {FORMATS}.")
    return Source("dataset", tuple(name.split(":")))


def _find_sides(prefix: Path, language: str) -> tuple[str, str] | None:
    """Find `prefix.en` and `prefix.sw` by the tags of their languages, whichever these are."""
    files: dict[str, str] = {}
    for file in sorted(prefix.parent.glob(f"{glob.escape(prefix.name)}.*")) if prefix.name else []:
        if file.is_file():
            # Of a file and the same compressed, the first is the plain one.
            files.setdefault(plain_name(file.name).removeprefix(f"{prefix.name}."), str(file))
    try:
        english, translation = choose_tag(files, "en"), choose_tag(files, language)
    except ValueError as error:
        raise ValueError(f"{prefix}: the endings {error}, or give both files as 'corpus.en,corpus.yo'.") from None
    return None if english is None or translation is None else (files[english], files[translation])


def read_pairs(
    source: Source, language: str, malformed: MalformedLines, *, split: str = "train", streaming: bool = False
) -> Iterator[tuple[str, str]]:
    """Yield the pairs of one source as they are written there, in their order.

    Args:
        source ([`Source`]): what `find_source` returned.
        language (`str`): the language of the translations.
        malformed ([`MalformedLines`]): notes the lines that cannot be read; they are left out.
        split (`str`, *optional*, defaults to `"train"`): the split of a dataset; files have none.
        streaming (`bool`, *optional*, defaults to `False`): whether a dataset is streamed rather than downloaded.

    Raises:
        ValueError: if the source holds no pair, or is damaged.
    """
    before, pairs = malformed.count, 0
    if source.kind == "moses":
        reader = read_moses(source.paths[0], source.paths[1], malformed)
    elif source.kind == "dataset":
        reader = read_dataset(source.paths, language, malformed, split, streaming)
    elif source.kind == "tmx":
        reader = read_tmx(source.paths[0], language, malformed)
    else:
        reader = read_text_file(source.paths[0], language, malformed)
    for pair in reader:
        pairs += 1
        yield pair
    if not pairs and malformed.count == before:
        unit = f" translation unit with both xml:lang 'en' and '{language}'" if source.kind == "tmx" else " pair"
        raise ValueError(f"{', '.join(source.paths)}: holds no{unit}; give another file or leave it out.")
