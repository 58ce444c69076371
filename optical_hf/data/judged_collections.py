"""Judged collections: topics, judgements, and one pass over the passages that keeps only those that are judged.

Memory grows with the topics and the judgements that are kept, not with the collection.
"""

from __future__ import annotations

import glob
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from .judgements import Judged, add_grade, read_judgements
from .malformed_lines import MalformedLines
from .miracl import load_miracl
from .text_files import COMPRESSED, numbered_lines, parse_json, warn_of_surrogates
from .training_row_checks import Passage, Record, RowTally
from .trec_files import check_id, join_title, read_topics

_SENTENCE = re.compile(r".+?(?:[.!?\u061f\u0964\u1362\u06d4](?=\s)|[\u3002\uff01\uff1f]|$)", re.DOTALL | re.MULTILINE)


def iter_collection(paths: str | Iterable[str]) -> Iterator[tuple[str, str]]:
    """Iterate lazily over the passages of a collection of any size.

    Unlike [`trec_files.iter_passages`] it keeps no ids, so a document id that is there twice goes unnoticed.

    Args:
        paths (`str` or `Iterable[str]`):
            Files, or patterns such as `docs-*.jsonl.gz`: JSON lines with `docid` or `_id`, and `contents`, or `text`
            and perhaps `title`; or lines of `pid<TAB>text`. Plain or compressed.

    Yields:
        `tuple[str, str]`: the document id and the passage, `"title. text"`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: on a line of another form, a damaged file, or an empty one.
    """
    replaced: list[str] = []
    for pattern in [paths] if isinstance(paths, str) else paths:
        for path in sorted(glob.glob(pattern)) or [pattern]:
            line, as_json = "", is_json_lines(path)
            for number, line in numbered_lines(path):
                where = f"{path}, line {number}"
                if as_json:
                    docid, title, text, surrogates = _article(line, where)
                    replaced += [where] * surrogates
                    yield docid, join_title(title, text)
                    continue
                docid, tab, text = line.partition("\t")
                if not tab:
                    raise ValueError(f"{where}: no tab. Each line is a passage id, a tab and the passage.")
                check_id(docid, where, "document id")
                yield docid, text
            if not line:
                raise ValueError(f"{path} is empty: it holds no passage.")
    warn_of_surrogates(replaced)


def is_json_lines(path: str | os.PathLike[str]) -> bool:
    """Tell by the first line of a file that is not blank whether it holds JSON objects."""
    return next((line for _, line in numbered_lines(path)), "").lstrip().startswith("{")


def _article(line: str, where: str) -> tuple[str, str | None, str, int]:
    try:
        record, surrogates = parse_json(line)
    except ValueError as error:
        raise ValueError(f"{where}: {error}.") from None
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected a JSON object with `docid` and `text`, not {type(record).__name__}.")
    docid: Any = record.get("docid", record.get("_id"))
    check_id(docid, where, "document id")
    title, text = (None, record["contents"]) if "contents" in record else (record.get("title"), record.get("text"))
    if not isinstance(text, str) or not isinstance(title, str | None):
        raise ValueError(f"{where}: `text` (or `contents`) and `title` must be strings, not {reprlib.repr(record)}.")
    return docid, title, text, surrogates


def read_queries(path: str | os.PathLike[str], article_query: str = "title") -> dict[str, str]:
    """Read queries by id.

    Args:
        path (`str` or `Path`):
            `qid<TAB>text` lines; or JSON lines with `_id` or `docid`, `text`, and `title` if they are articles.
        article_query (`str`, *optional*, defaults to `"title"`):
            What of an article is the query: its `"title"`, or the `"first_sentence"` of its text.

    Raises:
        ValueError: on a line of another form, or an id that is there twice.
    """
    if not is_json_lines(path):
        return read_topics(path)
    topics: dict[str, str] = {}
    replaced: list[str] = []
    for number, line in numbered_lines(path):
        where = f"{path}, line {number}"
        qid, title, text, surrogates = _article(line, where)
        replaced += [where] * surrogates
        if qid in topics:
            raise ValueError(f"{where}: query id {qid!r} is there twice.")
        if title:
            sentence = _SENTENCE.match(text.strip())
            text = title if article_query == "title" else sentence[0] if sentence else ""
        topics[qid] = text.strip()
    warn_of_surrogates(replaced)
    return topics


def read_collection(
    paths: Sequence[str],
    tally: RowTally,
    malformed: MalformedLines,
    *,
    article_query: str = "title",
    min_grade: int = 1,
    max_rows: int | None = None,
    max_negatives: int | None = None,
) -> Iterator[Record]:
    """Yield the judged queries of three files.

    Args:
        paths (`Sequence[str]`): topics, see [`read_queries`]; passages, see [`iter_collection`]; judgements, see
            [`judgements.read_judgements`].
        tally ([`RowTally`]): counts judged queries that are no topics.
        malformed ([`MalformedLines`]): notes the judgements that cannot be read.
        article_query (`str`, *optional*): see [`read_queries`].
        min_grade, max_rows, max_negatives: see [`judgements.read_judgements`].
    """
    topics, passages, judgements = paths
    for path in (topics, judgements, *(sorted(glob.glob(passages)) or [passages])):
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file, given in '{','.join(paths)}'.")
    queries = read_queries(topics, article_query)
    judged = read_judgements(judgements, queries, tally, malformed, min_grade, max_rows, max_negatives)
    yield from _records(queries, judged, partial(iter_collection, passages), judgements)


def find_beir(folder: Path) -> tuple[str, str, str]:
    """Find topics, passages and the judgements of the split train in a folder of BEIR's layout.

    Raises:
        FileNotFoundError: naming what is not there.
    """
    files = []
    for name in ("queries.jsonl", "corpus.jsonl", "qrels/train.tsv"):
        there = [path for ending in ("", *COMPRESSED) if (path := folder / f"{name}{ending}").is_file()]
        if not there:
            raise FileNotFoundError(
                f"{folder} lacks {name} (also as .gz, .bz2 or .xz). A folder of training rows has BEIR's layout: "
                "corpus.jsonl, queries.jsonl and qrels/train.tsv; MIRACL's is given as 'miracl:train:FOLDER'."
            )
        files.append(str(there[0]))
    return files[0], files[1], files[2]


def read_miracl(
    language: str, split: str, folder: str | None, min_grade: int, max_rows: int | None
) -> Iterator[Record]:
    """Yield the judged queries of MIRACL, see [`load_miracl`]."""
    miracl = load_miracl(language, "judged", split, folder)
    judged: dict[str, Judged] = {}
    rows = 0
    for number, (qid, grades) in enumerate(miracl.qrels.items(), start=1):
        if qid in miracl.topics and (max_rows is None or rows < max_rows):
            judged[qid] = each = Judged()
            for docid, grade in grades.items():
                add_grade(each, docid, grade, number, min_grade)
            rows += len(each.positives)
    yield from _records(miracl.topics, judged, miracl.iter_passages, f"miracl {language} {split}")


def _records(
    topics: Mapping[str, str],
    judged: Mapping[str, Judged],
    passages: Callable[[], Iterable[tuple[str, str]]],
    where: str,
) -> Iterator[Record]:
    """Read the passages once, and yield the queries."""
    needed: set[str] = set()
    for each in judged.values():
        needed.update(each.positives, *each.negatives.values())
    texts: dict[str, str] = {}
    rank = os.environ.get("RANK", "0")
    for docid, text in tqdm(passages(), desc="Reading passages", unit=" passages", delay=3, disable=rank != "0"):
        if docid in needed:
            if texts.setdefault(docid, text) is not text:
                raise ValueError(f"{where}: the document id {docid!r} is there twice in the collection.")
    for qid, each in judged.items():
        every = [Passage(docid, texts.get(docid), score) for docid, (_, score) in each.positives.items()]
        shared = "" in each.negatives or not each.negatives
        for group in [every] if shared else [[positive] for positive in every]:
            line = each.positives[group[0].docid][0] if group else ""
            chosen = each.negatives.get("" if shared else group[0].docid, {})
            negatives = [Passage(docid, texts.get(docid), score) for docid, score in chosen.items()]
            yield Record(f"{where}:{line} (query {qid})", topics[qid], group, negatives, every)
