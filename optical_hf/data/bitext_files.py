"""Bitext in text files: lines of two columns, lines of JSON, and two files whose lines are parallel."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from .bitext_rows import row_pair
from .malformed_lines import MalformedLines
from .text_files import COMPRESSED, DAMAGE, bounded_lines, decode, open_bytes, parse_json, warn_of_surrogates

FORMATS = (
    "use english<TAB>translation in a .tsv, a .jsonl or a .tmx file (each also as .gz, .bz2 or .xz), two parallel "
    "text files as 'corpus.en,corpus.yo' or, by their prefix, 'corpus', a folder that `datasets` reads, or a Hugging "
    "Face dataset 'owner/name' or 'owner/name:config'"
)


def plain_name(name: str) -> str:
    """Return a file's name without the ending of a compressed one."""
    return name.rpartition(".")[0] if name.endswith(COMPRESSED) else name


def file_kind(name: str) -> str:
    """Return the ending of a file's name, as if it was not compressed: `tsv` of `pairs.tsv.gz`."""
    return plain_name(name).rpartition(".")[2]


def read_text_file(path: str, language: str, malformed: MalformedLines) -> Iterator[tuple[str, str]]:
    """Yield the pairs of a `.jsonl` or a `.tsv` file.

    Args:
        path (`str`): the file, plain or compressed, on this machine or `hf://...`.
        language (`str`): of the translations, as `language_code` gives it.
        malformed ([`MalformedLines`]): notes the lines that cannot be read.
    """
    return _read_jsonl(path, language, malformed) if file_kind(path) == "jsonl" else _read_tsv(path, malformed)


def _read_lines(path: str, malformed: MalformedLines) -> Iterator[tuple[int, str | None]]:
    # Lines are split as bytes: str.splitlines would also split at U+2028 and the like, within a sentence.
    number = 0
    with open_bytes(path) as file:
        try:
            for number, line in enumerate(bounded_lines(file), start=1):
                text = None
                try:
                    text = decode(line)
                except ValueError as error:
                    malformed.add(f"{path}:{number}", str(error))
                yield number, text
        except DAMAGE:
            malformed.add(f"{path}:{number + 1}", "the file is cut off or damaged here; fetch it again")
            malformed.raise_if_any()


def _read_tsv(path: str, malformed: MalformedLines) -> Iterator[tuple[str, str]]:
    # Quotation marks are text like any other.
    width, english, translation = 2, 0, 1
    for number, line in _read_lines(path, malformed):
        if line is None:
            continue
        columns = line.split("\t")
        if number == 1 and (header := _header(columns)):
            width, (english, translation) = len(columns), header
        elif not line.strip():
            yield "", ""
        elif len(columns) == width:
            yield columns[english], columns[translation]
        else:
            problem = "no tab" if len(columns) == 1 else f"{len(columns)} columns"
            expected = "a line is english<TAB>translation" if width == 2 else f"the first line has {width}"
            malformed.add(f"{path}:{number}", f"{problem}; {expected}")


def _header(columns: list[str]) -> tuple[int, int] | None:
    """Tell where the two sides are, if this line has the names of the columns, as TSV files of datasets begin."""
    names = [column.strip() for column in columns]
    for translation in ("translation", "non_english"):
        if "english" in names and translation in names:
            return names.index("english"), names.index(translation)
    return None


def _read_jsonl(path: str, language: str, malformed: MalformedLines) -> Iterator[tuple[str, str]]:
    replaced: list[str] = []
    for number, line in _read_lines(path, malformed):
        if line is None or not line.strip():
            continue
        try:
            row, surrogates = parse_json(line)
            pair = row_pair(row, language)
        except ValueError as error:
            malformed.add(f"{path}:{number}", str(error))
            continue
        if surrogates:
            replaced += [f"{path}:{number}"] * surrogates
        yield pair
    warn_of_surrogates(replaced)


def read_moses(english: str, translation: str, malformed: MalformedLines) -> Iterator[tuple[str, str]]:
    """Yield the pairs of two files, line by line.

    Args:
        english (`str`): the file of English, plain or compressed.
        translation (`str`): the other file, of as many lines.
        malformed ([`MalformedLines`]): notes the lines that cannot be read, and a file that is shorter.
    """
    lengths = [0, 0]
    for lines in zip_longest(_read_lines(english, malformed), _read_lines(translation, malformed)):
        for side, line in enumerate(lines):
            lengths[side] += line is not None
        (_, first), (_, second) = (line or (0, None) for line in lines)
        if first is not None and second is not None:
            yield first, second
    if lengths[0] != lengths[1]:
        (few, shorter), (many, longer) = sorted(zip(lengths, (english, translation), strict=True))
        malformed.add(
            f"{shorter}:{few + 1}", f"ends after {few} lines, {longer} after {many}; line n of both must be a pair"
        )
