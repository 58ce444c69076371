"""Training rows of a retriever: a query, a passage that answers it, and hard negatives that do not.

[`load_training_rows`] reads, checks and counts them. `training_row_lines` holds the forms of JSON lines
and writes rows, `judged_collections` reads topics and judgements over a collection, `training_row_checks` drops.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset, Features, IterableDataset, List, Value, concatenate_datasets, interleave_datasets
from tqdm.auto import tqdm

from .malformed_lines import MalformedLines
from .training_row_checks import NEGATIVE_REASONS, ROW_REASONS, KnownPositives, Record, RowChecks, RowTally
from .training_row_lines import write_training_rows
from .training_row_sources import ReadingOptions, RowSource, find_row_source, language_pair, pair_name, read_records

__all__ = ["FEATURES", "TrainingRows", "load_training_rows", "parse_row_arguments", "write_training_rows"]

logger = logging.getLogger(__name__)

FEATURES = Features(
    {
        "query": Value("string"),
        "query_language": Value("string"),
        "document_language": Value("string"),
        "passages": List(Value("string")),
        "scores": List(Value("float64")),
        "positives": List(Value("string")),
        "docids": List(Value("string")),
    }
)
_CHUNK = 20_000


@dataclass
class TrainingRows:
    """What [`load_training_rows`] returns.

    Args:
        dataset (`datasets.Dataset` or `datasets.IterableDataset`):
            Columns `query`, `query_language`, `document_language`; `passages`, the positive first, then its
            negatives, perhaps none; `scores` of a teacher for these, or `None`; `docids` of these; and `positives`,
            the docids of all known positives of the query. A passage that has no docid is named by a hash of its text.
        counts (`dict[str, dict[str, int]]`):
            By language pair, such as `"sw"` or `"sw-en"`, how many rows were `kept`, with how many `negatives`; how
            many were dropped as `empty`, `without_positive`, `missing` from the collection or `duplicate`; and how
            many negatives, as `positive_negatives` (a positive of the same query), `empty_negatives`,
            `missing_negatives` and `duplicate_negatives`. Of a stream, the counts of the latest pass in this process.
        scored_by (`str`, *optional*):
            The fingerprint of the model that made the scores, if there are some that name it. Of a stream, `None`.
    """

    dataset: Dataset | IterableDataset
    counts: dict[str, dict[str, int]]
    scored_by: str | None = None


def parse_row_arguments(arguments: Iterable[str], name: str = "--rows") -> dict[str, list[str]]:
    """Parse the command line's `--rows sw=rows.jsonl sw-en=topics.tsv,passages.jsonl,qrels.tsv`.

    Args:
        arguments (`Iterable[str]`):
            Each `pair=source`; a pair is `sw`, of queries and passages alike, or `sw-en`, of queries in Swahili over
            English passages. It may come several times.
        name (`str`, *optional*, defaults to `"--rows"`): of the argument, for the error.

    Returns:
        `dict[str, list[str]]`: the sources of each pair, for [`load_training_rows`].

    Raises:
        ValueError: naming the argument that is not `pair=source`.
    """
    sources: dict[str, list[str]] = {}
    for argument in arguments:
        pair, equals, source = argument.partition("=")
        if not equals or not source.strip():
            raise ValueError(f"{name} {argument}: write pair=source, such as 'sw=rows.jsonl' or 'sw-en=rows.jsonl'.")
        sources.setdefault(pair_name(language_pair(pair)), []).append(source.strip())
    return sources


class _Pair(NamedTuple):
    """The sources of a language pair, each as its kind and its paths, and the counts."""

    languages: tuple[str, str]
    sources: tuple[RowSource, ...]
    tally: RowTally

    @property
    def name(self) -> str:
        return pair_name(self.languages)


def load_training_rows(
    sources: Mapping[str, str | Path | Sequence[str | Path]],
    *,
    max_rows: int | None = None,
    max_negatives: int | None = None,
    min_grade: int = 1,
    article_query: str = "title",
    streaming: bool = False,
    seed: int = 0,
) -> TrainingRows:
    """Read training rows of one or several language pairs, checked and counted.

    A row is dropped, and counted, if its query or its positive is empty, it has no positive, the query or the positive
    is in no collection, or query and positive are there before. A negative is dropped if it is a positive of the same
    query, by its id or its text, if it is empty or there twice, or is in no collection.

    Args:
        sources (`Mapping[str, str | Path | Sequence[str | Path]]`):
            By language pair (`"sw"` for queries and passages alike, `"sw-en"` for queries in Swahili over English
            passages), one or several of:

            - JSON lines of rows: with `query`, `positive` or `positives`, `negatives` and perhaps `scores` (first of
              the positives), `docids` and `scored_by`; or the forms of Tevatron, FlagEmbedding and
              sentence-transformers. One row for each query and positive.
            - `"TOPICS,PASSAGES,JUDGEMENTS"`: topics `qid<TAB>text`, or JSON lines of articles; a collection of JSON
              lines or of `pid<TAB>text`, which is read once and may be of any size; TREC qrels, or MS MARCO's triples
              of ids, perhaps with scores before them.
            - a folder in BEIR's layout: its split train.
            - `"miracl"`, which is its split train, `"miracl:dev"`, or `"miracl:train:FOLDER"`, see [`load_miracl`].

            Files may be `.gz`, `.bz2` or `.xz`.
        max_rows (`int`, *optional*):
            The most rows of each pair: the first ones.
        max_negatives (`int`, *optional*):
            The most negatives of a row. Of more, so many are chosen by chance; of triples, the first are taken.
        min_grade (`int`, *optional*, defaults to 1):
            The least grade of a positive. Judgements of 0 or less are the query's negatives.
        article_query (`str`, *optional*, defaults to `"title"`):
            What of an article is the query: its `"title"`, or the `"first_sentence"` of its text.
        streaming (`bool`, *optional*, defaults to `False`):
            Whether to read lazily. Pairs alternate. A malformed line raises when it is reached, and `positives` are
            those of a line or of the three files: what other lines say of the query is not known yet.
        seed (`int`, *optional*, defaults to 0):
            Seeds the choice of negatives.

    Returns:
        [`TrainingRows`]: the dataset and the counts.

    Raises:
        FileNotFoundError: if a source does not exist.
        ValueError: if lines are malformed (the first 20 are named by file and line), a pair has no row left, or scores
            are of two models.

    Example:

        >>> rows = load_training_rows({"sw": "rows.jsonl", "sw-en": "topics.tsv,passages.jsonl.gz,qrels.tsv"})
        >>> rows.counts["sw"]["kept"]
        1200
    """
    if article_query not in ("title", "first_sentence"):
        raise ValueError(f"article_query is {article_query!r}; it must be 'title' or 'first_sentence'.")
    for option, value, least in (("max_rows", max_rows, 1), ("max_negatives", max_negatives, 0)):
        if value is not None and value < least:
            raise ValueError(f"{option} is {value}; it must be at least {least}.")
    given: dict[tuple[str, str], list[RowSource]] = {}
    for name, places in sources.items():
        places = [places] if isinstance(places, str | Path) else places
        if not places:
            raise ValueError(f"No source given for the language pair '{name}'.")
        given.setdefault(language_pair(name), []).extend(map(find_row_source, places))
    if not given:
        raise ValueError("No training rows given: pass a source for at least one language pair.")
    pairs = [_Pair(languages, tuple(places), RowTally()) for languages, places in given.items()]
    counts = {pair.name: pair.tally.counts for pair in pairs}
    options = ReadingOptions(max_rows, max_negatives, min_grade, article_query, seed)
    if streaming:
        streams = [
            IterableDataset.from_generator(_streamed, features=FEATURES, gen_kwargs={"pair": pair, "options": options})
            for pair in pairs
        ]
        return TrainingRows(
            interleave_datasets(streams, stopping_strategy="all_exhausted_without_replacement"), counts
        )
    malformed, scorers = MalformedLines(what="training rows"), _Scorers()
    parts = [_read_pair(pair, options, malformed, scorers) for pair in pairs]
    malformed.raise_if_any()
    for pair in pairs:
        _report(pair)
    return TrainingRows(concatenate_datasets(parts), counts, scorers.name)


class _Scorers:
    """The models that made the scores of one training: only one may."""

    def __init__(self) -> None:
        self.place = ""
        self.name: str | None = None

    def add(self, record: Record) -> None:
        if not any(passage.score is not None for passage in record.positives):
            return
        if self.place and record.scored_by != self.name:
            names = [
                "a model without a name" if name is None else repr(name) for name in (self.name, record.scored_by)
            ]
            raise ValueError(
                f"The scores at {self.place} are by {names[0]}, those at {record.place} by {names[1]}: scores of two "
                "models cannot be learnt together. Keep those of one (its name stands in 'scored_by')."
            )
        self.place, self.name = self.place or record.place, record.scored_by


def _rows(
    pair: _Pair, options: ReadingOptions, malformed: MalformedLines, scorers: _Scorers, *, quiet: bool = False
) -> Iterator[dict[str, Any]]:
    tally = pair.tally
    tally.reset()
    checks = RowChecks(*pair.languages, tally, options.max_negatives, options.seed)
    hidden = quiet or os.environ.get("RANK", "0") != "0"
    read = partial(read_records, languages=pair.languages, options=options, tally=tally, malformed=malformed)
    records = (record for source in pair.sources for record in read(source))
    for record in tqdm(records, desc=f"Reading rows {pair.name}", unit=" queries", delay=3, disable=hidden):
        scorers.add(record)
        yield from checks.rows(record, options.max_rows)
        if tally.counts["kept"] == options.max_rows:
            return


def _read_pair(pair: _Pair, options: ReadingOptions, malformed: MalformedLines, scorers: _Scorers) -> Dataset:
    known = KnownPositives()
    parts = list(_chunks(known.noted(_rows(pair, options, malformed, scorers))))
    if known.several:  # two records are about one query
        parts = [part for rows in parts for part in _chunks(known.completed(row, pair.tally) for row in rows)]
    return concatenate_datasets(parts or [Dataset.from_dict({name: [] for name in FEATURES}, features=FEATURES)])


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[Dataset]:
    # Python strings of many passages take several times the memory of an Arrow table.
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _CHUNK:
            yield Dataset.from_list(chunk, features=FEATURES)
            chunk = []
    if chunk:
        yield Dataset.from_list(chunk, features=FEATURES)


def _streamed(pair: _Pair, options: ReadingOptions) -> Iterator[dict[str, Any]]:
    yield from _rows(pair, options, MalformedLines(at_once=True, what="training rows"), _Scorers(), quiet=True)
    _report(pair)


def _report(pair: _Pair) -> None:
    count = pair.tally.counts
    total = count["kept"] + sum(count[reason] for reason in ROW_REASONS)
    dropped = [f"{count[reason]:,} {reason}" for reason in (*ROW_REASONS, *NEGATIVE_REASONS) if count[reason]]
    message = (
        f"Training rows {pair.name}: {count['kept']:,} of {total:,} kept, with {count['negatives']:,} negatives; "
        f"dropped: {', '.join(dropped).replace('_', ' ') or 'none'}."
    )
    message = "\n  ".join([message, *pair.tally.named])
    if not count["kept"]:
        raise ValueError(f"{message}\nNo row is left; check the sources.")
    logger.log(logging.WARNING if dropped else logging.INFO, message)
