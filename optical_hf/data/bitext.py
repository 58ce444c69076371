"""Bitext: pairs of an English sentence and its translation, the training data of OPTICAL.

[`load_bitext`] reads, normalises, filters, deduplicates and counts the pairs of each language. `bitext_readers` holds
the file formats, `bitext_sampling` the balancing of languages and the held-out split.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, IterableDataset, Value, concatenate_datasets, interleave_datasets
from tqdm.auto import tqdm

from ..bounds import MOST_SEED, check_count, check_number
from .bitext_readers import Source, find_source, read_pairs
from .bitext_sampling import balance_languages, language_probabilities
from .characters import all_normalized, all_visible, visible
from .languages import language_code
from .malformed_lines import MalformedLines

logger = logging.getLogger(__name__)

REASONS = ("empty", "identical", "long", "mismatched", "duplicate")
_FEATURES = Features({"english": Value("string"), "translation": Value("string"), "language": Value("string")})
_HAN_KANA = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WIDE = re.compile(f"[{_HAN_KANA}\u1100-\u11ff\uac00-\ud7af]")  # and Hangul
_UNSPACED_WORD = re.compile(f"[{_HAN_KANA}]{{2}}|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]{{5}}")
_LONGEST_WORD = 64  # characters, on average over a side
_CHUNK = 100_000
_BATCH = 1 << 15  # characters of which the checks are made at once
_MOST_REMEMBERED = 5_000_000


@dataclass
class Bitext:
    """What [`load_bitext`] returns.

    Args:
        dataset (`datasets.Dataset` or `datasets.IterableDataset`):
            Columns `english`, `translation` and `language`, a language code.
        counts (`dict[str, dict[str, int]]`):
            By language, how many pairs were `kept`, and dropped as `empty`, `identical`, `long`, `mismatched` or
            `duplicate`. Of a stream, the counts of the latest pass in this process (`DataLoader` workers count for
            themselves).
    """

    dataset: Dataset | IterableDataset
    counts: dict[str, dict[str, int]]


def parse_bitext_arguments(arguments: Iterable[str]) -> dict[str, list[str]]:
    """Parse the command line's `--bitext sw=first.tsv yo=second.tsv yo=third.tsv`.

    Args:
        arguments (`Iterable[str]`): each `language=source`; a language may come several times.

    Returns:
        `dict[str, list[str]]`: the sources of each language, for [`load_bitext`].

    Raises:
        ValueError: naming the argument that is not `language=source`.
    """
    sources: dict[str, list[str]] = {}
    for argument in arguments:
        language, equals, source = argument.partition("=")
        if not equals or not source.strip():
            raise ValueError(f"--bitext {argument}: write language=source, such as 'sw=bitext.en-sw.tsv'.")
        sources.setdefault(_translation_language(language.strip()), []).append(source.strip())
    return sources


def _translation_language(code: str) -> str:
    if (language := language_code(code)) == "en":
        raise ValueError("Bitext pairs English with another language, so 'en' cannot be its language; give the other.")
    return language


def load_bitext(
    sources: Mapping[str, str | Path | Sequence[str | Path]],
    *,
    max_words: int = 128,
    max_ratio: float = 3.0,
    temperature: float = 1.0,
    seed: int = 0,
    split: str = "train",
    streaming: bool = False,
) -> Bitext:
    """Read bitext of one or several languages, filtered and counted.

    Every text is Unicode NFC with single spaces and without what cannot be seen, see [`characters.visible`]. A pair is
    dropped for the first of these reasons that holds: a side is `empty`; both sides are `identical` but for case; one
    is too `long`; their lengths are `mismatched`; it is a `duplicate` of a pair of that language, from whichever
    source.

    Args:
        sources (`Mapping[str, str | Path | Sequence[str | Path]]`):
            By language code, one or several of: a `.tsv` file of english<TAB>translation, or whose first line names
            such columns; a `.jsonl` file with the keys `english` and `translation` (or `non_english`), or
            `translation` with `{"en": ..., "sw": ...}`; a `.tmx` file; two parallel text files
            `"corpus.en,corpus.sw"` or their prefix `"corpus"`; a dataset with such columns, as a folder or as
            `"owner/name"` or `"owner/name:config"` on the Hub. Files may be `.gz`, `.bz2` or `.xz`.
        max_words (`int`, *optional*, defaults to 128):
            The most words of a side. In scripts without spaces, 2 characters of Han or kana and 5 of Thai, Lao,
            Burmese or Khmer are a word. More than 64 characters a word are too long as well.
        max_ratio (`float`, *optional*, defaults to 3.0):
            How many times as long as the other a side may be, in characters, with 10 added to both so that short
            sentences pass. A character of Han, kana or Hangul counts as two.
        temperature (`float`, *optional*, defaults to 1.0):
            1 gives every pair exactly once; more lets smaller languages repeat, see [`balance_languages`]. A stream
            with another finite temperature is read once in advance to count its pairs.
        seed (`int`, *optional*, defaults to 0):
            Seeds the sampling of languages.
        split (`str`, *optional*, defaults to `"train"`):
            The split of datasets.
        streaming (`bool`, *optional*, defaults to `False`):
            Whether to read lazily. Languages alternate; shuffle with a buffer. Of each language the first 5,000,000
            pairs are remembered to find duplicates (about 70 bytes each). A malformed line raises when it is reached.

    Returns:
        [`Bitext`]: the dataset and the counts.

    Raises:
        FileNotFoundError: if a source does not exist.
        ValueError: if lines are malformed (the first 20 are named by file and line), a source is empty or of an
            unknown format, or a language has no pair left.

    Example:

        >>> bitext = load_bitext({"sw": "bitext.en-sw.tsv", "yo": ["one.en-yo", "two.tmx.gz"]})
        >>> bitext.dataset[0]
        {'english': 'Good morning.', 'translation': 'Habari za asubuhi.', 'language': 'sw'}
    """
    check_count("max_words", max_words)
    check_number("max_ratio", max_ratio, math.inf, 1)
    check_number("temperature", temperature, math.inf, above=True)
    check_count("seed", seed, MOST_SEED, least=0)
    found: defaultdict[str, list[Source]] = defaultdict(list)
    for code, given in sources.items():
        language = _translation_language(code)
        given = [given] if isinstance(given, str | Path) else given
        if not given:
            raise ValueError(f"No source given for language '{code}'.")
        found[language] += [find_source(source, language) for source in given]
    if not found:
        raise ValueError("No bitext given: pass a source for at least one language.")
    counts = _Counts({language: dict.fromkeys(("kept", *REASONS), 0) for language in found})
    filtered = partial(_filtered_pairs, split=split, streaming=streaming, max_words=max_words, max_ratio=max_ratio)
    if streaming:
        return Bitext(_stream(filtered, dict(found), counts, temperature, seed), counts)

    malformed = MalformedLines()
    dataset = concatenate_datasets(
        [part for code in found for part in _chunks(filtered(code, found[code], counts, malformed), code)]
    )
    malformed.raise_if_any()
    for language in found:
        _report(language, counts[language])
    return Bitext(dataset if temperature == 1.0 else balance_languages(dataset, temperature, seed), counts)


class _Counts(dict[str, dict[str, int]]):
    # `datasets` copies the arguments of a stream's generator; the caller's counts must stay the ones counted into.
    def __deepcopy__(self, memo: dict[int, Any]) -> _Counts:
        return self


def _filtered_pairs(
    language: str,
    sources: Sequence[Source],
    counts: dict[str, dict[str, int]],
    malformed: MalformedLines,
    *,
    split: str,
    streaming: bool,
    max_words: int,
    max_ratio: float,
) -> Iterator[tuple[str, str]]:
    count = counts[language]
    count.update(dict.fromkeys(count, 0))
    seen: set[int] = set()
    read = partial(read_pairs, language=language, malformed=malformed, split=split, streaming=streaming)
    pairs = (pair for source in sources for pair in read(source))
    hidden = streaming or os.environ.get("RANK", "0") != "0"
    with tqdm(desc=f"Reading bitext en-{language}", unit=" pairs", delay=3, disable=hidden) as progress:
        # A stream reads no further than it is asked to.
        for batch in _batches(pairs, 1 if streaming else _BATCH):
            possible: list[tuple[str, str]] = []
            for english, translation in zip(*map(_tidied, zip(*batch, strict=True)), strict=True):
                if not english or not translation:
                    count["empty"] += 1
                elif max(len(english), len(translation)) > _LONGEST_WORD * max_words:
                    count["long"] += 1  # before the normal form, which costs more: a line may be a whole file
                else:
                    possible.append((english, translation))
            for english, translation in zip(
                *(all_normalized("NFC", side) for side in zip(*possible, strict=True)), strict=True
            ):
                pair = english, translation
                reason = _reason_to_drop(english, translation, max_words, max_ratio)
                if reason is None:
                    key = hash(pair)  # 64 bits
                    if key in seen:
                        reason = "duplicate"
                    elif not streaming or len(seen) < _MOST_REMEMBERED:
                        seen.add(key)
                count[reason or "kept"] += 1
                if reason is None:
                    yield pair
            progress.update(len(batch))


def _batches(pairs: Iterable[tuple[str, str]], characters: int) -> Iterator[list[tuple[str, str]]]:
    batch, size = [], 0
    for pair in pairs:
        batch.append(pair)
        size += len(pair[0]) + len(pair[1]) + 1
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _tidied(texts: Sequence[str]) -> Sequence[str]:
    whole = f"|{'|'.join(texts)}|"
    if not all_visible(whole):
        return [" ".join(visible(text).split()) for text in texts]
    # The only white space there can be here is the space.
    if "  " in whole or "| " in whole or " |" in whole:
        return [" ".join(text.split()) for text in texts]
    return texts


def _reason_to_drop(english: str, translation: str, max_words: int, max_ratio: float) -> str | None:
    if english.casefold() == translation.casefold():
        return "identical"
    shorter, longer = sorted((len(english), len(translation)))
    # A text has no more words than characters, and is twice as wide at most: so few texts have to be counted.
    if longer > max_words and (_words(english) > max_words or _words(translation) > max_words):
        return "long"
    if 2 * longer + 10 <= max_ratio * (shorter + 10):
        return None
    shorter, longer = sorted((_width(english), _width(translation)))
    return "mismatched" if longer + 10 > max_ratio * (shorter + 10) else None


def _words(text: str) -> int:
    return text.count(" ") + 1 + (0 if text.isascii() else len(_UNSPACED_WORD.findall(text)))


def _width(text: str) -> int:
    return len(text) + (0 if text.isascii() else len(_WIDE.findall(text)))


def _chunks(pairs: Iterator[tuple[str, str]], language: str) -> Iterator[Dataset]:
    # Python strings of a long bitext take several times the memory of an Arrow table.
    columns: tuple[list[str], list[str]] = [], []
    for english, translation in pairs:
        columns[0].append(english)
        columns[1].append(translation)
        if len(columns[0]) == _CHUNK:
            yield _dataset(*columns, language)
            columns = [], []
    yield _dataset(*columns, language)


def _dataset(english: list[str], translation: list[str], language: str) -> Dataset:
    columns = {"english": english, "translation": translation, "language": [language] * len(english)}
    return Dataset(pa.table(columns, _FEATURES.arrow_schema))


def _report(language: str, count: dict[str, int]) -> None:
    total = sum(count.values())
    dropped = ", ".join(f"{count[reason]:,} {reason}" for reason in REASONS if count[reason]) or "none"
    message = f"Bitext en-{language}: {count['kept']:,} of {total:,} pairs kept; dropped: {dropped}."
    if not count["kept"]:
        raise ValueError(f"{message} No pair is left; check the sources, max_words and max_ratio.")
    logger.log(logging.WARNING if 2 * count["kept"] < total else logging.INFO, message)


def _stream(
    filtered: Callable[..., Iterator[tuple[str, str]]],
    sources: dict[str, list[Source]],
    counts: dict[str, dict[str, int]],
    temperature: float,
    seed: int,
) -> IterableDataset:
    # A tuple, since `datasets` takes a list for shards and would seek duplicates within each source only.
    arguments: dict[str, dict[str, Any]] = {
        language: {"filtered": filtered, "language": language, "sources": tuple(sources[language]), "counts": counts}
        for language in sources
    }
    streams = [
        IterableDataset.from_generator(_streamed_pairs, features=_FEATURES, gen_kwargs=arguments[language])
        for language in sources
    ]
    if temperature == 1.0:
        return interleave_datasets(streams, stopping_strategy="all_exhausted_without_replacement")
    sizes = dict.fromkeys(sources, 1)  # sizes do not matter at an infinite temperature
    if math.isfinite(temperature):
        logger.info("Counting the pairs of each language: one pass over every source.")
        sizes = {language: sum(1 for _ in _streamed_pairs(**arguments[language])) for language in sources}
    probabilities = list(language_probabilities(sizes, temperature).values())
    return interleave_datasets(streams, probabilities=probabilities, seed=seed, stopping_strategy="all_exhausted")


def _streamed_pairs(
    filtered: Callable[..., Iterator[tuple[str, str]]],
    language: str,
    sources: tuple[Source, ...],
    counts: dict[str, dict[str, int]],
) -> Iterator[dict[str, str]]:
    for english, translation in filtered(language, sources, counts, MalformedLines(at_once=True)):
        yield {"english": english, "translation": translation, "language": language}
    _report(language, counts[language])
