"""Where training rows come from: files of rows, judged collections, MIRACL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .judged_collections import find_beir, is_json_lines, read_collection, read_miracl
from .languages import language_code
from .malformed_lines import MalformedLines
from .training_row_checks import Record, RowTally
from .training_row_lines import FORMS, read_row_lines

SOURCES = (
    f"give JSON lines of rows ({FORMS}), three files 'TOPICS,PASSAGES,JUDGEMENTS', a folder in BEIR's layout, or "
    "'miracl', 'miracl:dev' or 'miracl:train:FOLDER'"
)


class RowSource(NamedTuple):
    """Where rows come from: `kind` is `lines`, `collection` (three files) or `miracl` (split, folder)."""

    kind: str
    paths: tuple[str, ...]


class ReadingOptions(NamedTuple):
    """The options of [`load_training_rows`] that decide what is read."""

    max_rows: int | None
    max_negatives: int | None
    min_grade: int
    article_query: str
    seed: int


def language_pair(pair: str) -> tuple[str, str]:
    """Return the language codes of queries and passages, of `sw` or `sw-en`."""
    query, _, document = pair.strip().partition("-")
    return language_code(query), language_code(document or query)


def pair_name(languages: tuple[str, str]) -> str:
    """Write a pair as [`language_pair`] reads it, in its shortest form."""
    return languages[0] if languages[0] == languages[1] else "-".join(languages)


def find_row_source(source: str | Path) -> RowSource:
    """Tell what kind of source this is, by the first line of a file.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ValueError: if the file is of no known form.
    """
    name = str(source)
    if name.split(":")[0] == "miracl":
        _, split, folder = f"{name}::".split(":", 2)
        return RowSource("miracl", (split or "train", folder.rstrip(":")))
    path = Path(name).expanduser()
    if path.is_dir():
        return RowSource("collection", find_beir(path))
    if path.is_file():
        if not is_json_lines(path):
            raise ValueError(f"{name}: its first line is no JSON object; {SOURCES}.")
        return RowSource("lines", (str(path),))
    files = tuple(str(Path(part.strip()).expanduser()) for part in name.split(","))
    if len(files) != 3:
        raise FileNotFoundError(f"{name}: no such file or folder; {SOURCES}.")
    return RowSource("collection", files)


def read_records(
    source: RowSource,
    languages: tuple[str, str],
    options: ReadingOptions,
    tally: RowTally,
    malformed: MalformedLines,
) -> Iterator[Record]:
    """Yield what a source says of its queries, in its order.

    Args:
        source ([`RowSource`]): what `find_row_source` returned.
        languages (`tuple[str, str]`): codes of the queries' and the passages' language.
        options ([`ReadingOptions`]): what is read.
        tally ([`RowTally`]): counts.
        malformed ([`MalformedLines`]): notes the lines that cannot be read.
    """
    left = None if options.max_rows is None else options.max_rows - tally.counts["kept"]
    if source.kind == "lines":
        yield from read_row_lines(source.paths[0], languages, malformed)
    elif source.kind == "miracl":
        if languages[0] != languages[1]:
            raise ValueError(f"MIRACL has queries and passages of one language, not '{pair_name(languages)}'.")
        split, folder = source.paths
        yield from read_miracl(languages[0], split, folder or None, options.min_grade, left)
    else:
        chosen = {name: getattr(options, name) for name in ("article_query", "min_grade", "max_negatives")}
        yield from read_collection(source.paths, tally, malformed, max_rows=left, **chosen)
