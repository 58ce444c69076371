"""Readers of bitext files and datasets: each yields (English, translation) pairs as they are written there.

A line that cannot be read never stops the reading by itself: it is noted in `MalformedLines`, so that one error names
all of them.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast
from xml.etree import ElementTree

from datasets import DatasetDict, load_dataset, load_from_disk

from .languages import language_code

FORMATS = (
    "use english<TAB>translation in a .tsv, a .jsonl or a .tmx file (each also as .gz), two parallel text files as "
    "'corpus.en,corpus.yo' or, by their prefix, 'corpus', a folder that `datasets` reads, or a Hugging Face dataset "
    "'owner/name' or 'owner/name:config'"
)
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_MOST_NAMED = 20


class MalformedLines:
    """The lines that could not be read, of all sources: at most 20 are named, all are counted.

    Args:
        at_once (`bool`):
            Whether the first malformed line raises, rather than `raise_if_any` in the end.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.at_once = at_once
        self.count = 0
        self.named: list[str] = []

    def add(self, place: str, problem: str) -> None:
        self.count += 1
        if len(self.named) < _MOST_NAMED:
            self.named.append(f"{place}: {problem}")
        if self.at_once:
            self.raise_if_any()

    def raise_if_any(self) -> None:
        if self.count:
            more = [f"... and {self.count - len(self.named)} more"] if self.count > len(self.named) else []
            lines = "line" if self.count == 1 else "lines"
            raise ValueError(
                "\n  ".join([f"{self.count} malformed {lines} in the bitext; correct or delete:", *self.named, *more])
            )


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
        ValueError: if the format is unknown.
    """
    name = str(source)
    path = Path(name).expanduser()
    if path.is_dir():
        return Source("dataset", (str(path),))
    if path.is_file():
        kind = path.name.removesuffix(".gz").rpartition(".")[2]
        if kind in ("tsv", "jsonl", "tmx"):
            return Source(kind, (str(path),))
        raise ValueError(f"{name}: not a known bitext format; {FORMATS}.")
    if "," in name:
        english, translation = (Path(part.strip()).expanduser() for part in name.split(",", 1))
        for side in (english, translation):
            if not side.is_file():
                raise FileNotFoundError(f"{side}: no such file, given as one side of the bitext '{name}'.")
        if _side_language(translation) == "en" and _side_language(english) == language:
            raise ValueError(f"'{name}' names the English file second; write '{translation},{english}'.")
        return Source("moses", (str(english), str(translation)))
    for end in ("", ".gz"):
        sides = tuple(f"{path}.{side}{end}" for side in ("en", language))
        if all(Path(side).is_file() for side in sides):
            return Source("moses", sides)
    # A path into a folder that is here, or to a file by its ending, is a path misspelt and not a dataset of the Hub.
    looks_local = Path(path.parts[0]).exists() if path.parts else True
    looks_local = looks_local or re.search(r"\.(tsv|jsonl|tmx|gz|json|csv|txt)$", name) is not None
    if looks_local or not _HUB_NAME.fullmatch(name):
        raise FileNotFoundError(f"{name}: no such file or folder (bitext of '{language}'); {FORMATS}.")
    return Source("dataset", tuple(name.split(":")))


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
    if source.kind == "tsv":
        reader = _read_tsv(source.paths[0], malformed)
    elif source.kind == "jsonl":
        reader = _read_jsonl(source.paths[0], language, malformed)
    elif source.kind == "tmx":
        reader = _read_tmx(source.paths[0], language, malformed)
    elif source.kind == "moses":
        reader = _read_moses(source.paths[0], source.paths[1], malformed)
    else:
        reader = _read_dataset(source.paths, language, malformed, split, streaming)
    for pair in reader:
        pairs += 1
        yield pair
    if not pairs and malformed.count == before:
        unit = f" translation unit with both xml:lang 'en' and '{language}'" if source.kind == "tmx" else " pair"
        raise ValueError(f"{', '.join(source.paths)}: holds no{unit}; give another file or leave it out.")


def _open(path: str) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.endswith(".gz") else open(path, "rb")


def _read_lines(path: str, malformed: MalformedLines) -> Iterator[tuple[str, str | None]]:
    # Lines are split as bytes: str.splitlines would also split at U+2028 and the like, within a sentence.
    number = 0
    with _open(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                place = f"{path}:{number}"
                try:
                    yield place, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    malformed.add(place, f"not UTF-8 at byte {error.start + 1}; convert the file to UTF-8")
                    yield place, None
        except (EOFError, gzip.BadGzipFile, zlib.error):
            _raise_damaged(f"{path}:{number + 1}", malformed)


def _raise_damaged(place: str, malformed: MalformedLines) -> None:
    malformed.add(place, "the gzip file is cut off or damaged here; fetch it again")
    malformed.raise_if_any()


def _read_tsv(path: str, malformed: MalformedLines) -> Iterator[tuple[str, str]]:
    for place, line in _read_lines(path, malformed):
        if line is None:
            continue
        columns = line.split("\t") if line.strip() else ["", ""]
        if len(columns) == 2:
            yield columns[0], columns[1]
        elif len(columns) == 1:
            malformed.add(place, "no tab; a line is english<TAB>translation")
        else:
            malformed.add(place, f"{len(columns)} columns; a line is english<TAB>translation")


def _read_moses(english: str, translation: str, malformed: MalformedLines) -> Iterator[tuple[str, str]]:
    lengths = [0, 0]
    for lines in zip_longest(_read_lines(english, malformed), _read_lines(translation, malformed)):
        for side, line in enumerate(lines):
            lengths[side] += line is not None
        (_, first), (_, second) = (line or ("", None) for line in lines)
        if first is not None and second is not None:
            yield first, second
    if lengths[0] != lengths[1]:
        (few, shorter), (many, longer) = sorted(zip(lengths, (english, translation), strict=True))
        malformed.add(
            f"{shorter}:{few + 1}", f"ends after {few} lines, {longer} after {many}; line n of both must be a pair"
        )


def _read_jsonl(path: str, language: str, malformed: MalformedLines) -> Iterator[tuple[str, str]]:
    for place, line in _read_lines(path, malformed):
        if line is None or not line.strip():
            continue
        try:
            yield _row_pair(json.loads(line), language)
        except json.JSONDecodeError as error:
            malformed.add(place, f"not JSON ({error.msg}, column {error.colno}); a line is one JSON object")
        except ValueError as error:
            malformed.add(place, str(error))


def _read_tmx(path: str, language: str, malformed: MalformedLines) -> Iterator[tuple[str, str]]:
    body: ElementTree.Element | None = None
    with _open(path) as file:
        try:
            for event, element in ElementTree.iterparse(file, events=("start", "end")):
                tag = element.tag.rpartition("}")[2]
                if event == "start" and tag == "body":
                    body = element
                elif event == "end" and tag == "tu":
                    yield from _unit_pairs(element, language)
                    if body is not None:
                        body.clear()  # keeps memory flat however long the file is
        except ElementTree.ParseError as error:
            malformed.add(f"{path}:{error.position[0]}", f"not well-formed TMX ({error})")
        except (EOFError, gzip.BadGzipFile, zlib.error):
            _raise_damaged(path, malformed)


def _unit_pairs(unit: ElementTree.Element, language: str) -> Iterator[tuple[str, str]]:
    english: list[str] = []
    translations: list[str] = []
    for variant in unit.iterfind("{*}tuv"):
        found = _primary_language(variant.get(_XML_LANG) or variant.get("lang") or "")
        segment = variant.find("{*}seg")
        if segment is not None and found in ("en", language):
            (english if found == "en" else translations).append(_segment_text(segment))
    for translation in translations if english else []:
        yield english[0], translation


def _segment_text(element: ElementTree.Element) -> str:
    # The inline elements hold formatting codes of the original file, except <hi>, which marks text up.
    parts = [element.text or ""]
    for child in element:
        parts += [_segment_text(child) if child.tag.rpartition("}")[2] == "hi" else "", child.tail or ""]
    return "".join(parts)


def _read_dataset(
    paths: tuple[str, ...], language: str, malformed: MalformedLines, split: str, streaming: bool
) -> Iterator[tuple[str, str]]:
    folder, name = Path(paths[0]), ":".join(paths)
    try:
        if any((folder / file).is_file() for file in ("state.json", "dataset_dict.json")):
            dataset: Any = load_from_disk(paths[0])
            if isinstance(dataset, DatasetDict):
                if split not in dataset:
                    raise ValueError(f"no split '{split}' among {sorted(map(str, dataset))}")
                dataset = dataset[split]
        else:
            dataset = load_dataset(*paths, split=split, streaming=streaming)
    except (OSError, ValueError, RuntimeError) as error:
        where = "folder cannot be read" if folder.is_dir() else "no such file here, and the Hub gives no such dataset"
        raise ValueError(f"{name}: {where} ({error}); {FORMATS}.") from error
    for number, row in enumerate(dataset, start=1):
        try:
            yield _row_pair(row, language)
        except ValueError as error:  # the columns are those of every row
            malformed.add(f"{name}, row {number}", str(error))
            return


def _row_pair(row: Any, language: str) -> tuple[str, str]:
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__}, not an object with the keys 'english' and 'translation'")
    translation = row.get("translation", row.get("non_english"))
    if isinstance(translation, dict):
        sides = {_primary_language(key): text for key, text in translation.items()}
        if not {"en", language} <= sides.keys():
            raise ValueError(f"'translation' has the languages {sorted(translation)}, not 'en' and '{language}'")
        pair = (sides["en"], sides[language])
    elif "english" in row and ("translation" in row or "non_english" in row):
        pair = (row["english"], translation)
    else:
        raise ValueError(
            f"the keys are {sorted(row)}; they must be 'english' and 'translation' (or 'non_english'), or "
            f"'translation' with an object of 'en' and '{language}'"
        )
    for text in pair:
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{text!r} is not a text")
    return pair[0] or "", pair[1] or ""


def _primary_language(tag: str) -> str | None:
    try:
        return language_code(re.split("[-_]", tag.strip())[0])
    except ValueError:
        return None


def _side_language(path: Path) -> str | None:
    return _primary_language(path.name.removesuffix(".gz").rpartition(".")[2])
