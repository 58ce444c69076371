"""Topics, passages, qrels and runs as the plain files that TREC, MIRACL and Pyserini use.

The readers of runs and qrels live with the metric, which has to work without this package.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import numpy as np

from ..files import replacing
from ..metrics.miracl_ndcg.miracl_ndcg import read_qrels, read_run
from .characters import visible, without_surrogates
from .text_files import numbered_lines, parse_json, warn_of_surrogates

__all__ = [
    "iter_passages",
    "rank",
    "read_passages",
    "read_qrels",
    "read_run",
    "read_topics",
    "write_passages",
    "write_qrels",
    "write_run",
    "write_topics",
]


def read_topics(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read queries from a file of `qid<TAB>text` lines. Quotation marks are text like any other.

    Args:
        path (`str` or `Path`): the file, plain or compressed by gzip, bzip2 or xz.

    Returns:
        `dict[str, str]`: the queries by id, in the file's order.

    Raises:
        ValueError: on a line without a tab, an id or a text, on a repeated id, or if there is no line at all.
    """
    topics: dict[str, str] = {}
    for number, line in numbered_lines(path):
        where = f"{path}, line {number}"
        qid, tab, text = (part.strip() for part in line.partition("\t"))
        if "\t" not in line:
            raise ValueError(f"{where}: no tab. Each line is a query id, a tab and the query's text.")
        check_id(qid, where, "query id")
        if not visible(text).strip():
            raise ValueError(f"{where}: query {qid!r} has no text.")
        if qid in topics:
            raise ValueError(f"{where}: query id {qid!r} is there twice.")
        topics[qid] = text
    if not topics:
        raise ValueError(f"{path} is empty: expected lines of a query id, a tab and the query's text.")
    return topics


def iter_passages(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Iterator[tuple[str, str]]:
    """Iterate lazily over the passages of JSON lines files.

    Args:
        paths (`str`, `Path`, or a sequence of them):
            The corpus, JSON lines, plain or compressed, in one file or several. A line holds `docid` and either
            `contents`, or `text` and perhaps `title`. Lone surrogates become U+FFFD, with a warning in the end.

    Yields:
        `tuple[str, str]`: the document id and the passage, `contents` as it is or `"title. text"`.

    Raises:
        ValueError: on a line that is not such a JSON object, a repeated id, a damaged file, or an empty one.
    """
    seen: set[str] = set()
    replaced: list[str] = []
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        before = len(seen)
        for number, line in numbered_lines(path):
            where = f"{path}, line {number}"
            try:
                record, surrogates = parse_json(line)
            except ValueError as error:
                raise ValueError(f"{where}: {error}.") from None
            docid, text = _passage(record, where)
            replaced += [where] * surrogates
            if docid in seen:
                raise ValueError(f"{where}: document id {docid!r} is there twice.")
            seen.add(docid)
            yield docid, text
        if len(seen) == before:
            raise ValueError(f"{path} is empty: it holds no passage.")
    warn_of_surrogates(replaced)
    if not seen:
        raise ValueError("No file of passages was given.")


def read_passages(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> dict[str, str]:
    """Read all that [`iter_passages`] yields into memory, by document id, in the files' order."""
    return dict(iter_passages(paths))


def _passage(record: Any, where: str) -> tuple[str, str]:
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected a JSON object with `docid` and `text`, not {type(record).__name__}.")
    if "docid" not in record:
        raise ValueError(f"{where}: no `docid`.")
    if "contents" not in record and "text" not in record:
        raise ValueError(f"{where}: neither `text` nor `contents`.")
    for key in ("docid", "title", "text", "contents"):
        value = record.get(key, "")
        if not isinstance(value, str) and not (key == "title" and value is None):
            what = "null" if value is None else reprlib.repr(value)
            raise ValueError(f"{where}: `{key}` must be a string, not {what}.")
    check_id(record["docid"], where, "document id")
    if "contents" in record:
        return record["docid"], record["contents"]
    return record["docid"], join_title(record.get("title"), record["text"])


def join_title(title: str | None, text: str) -> str:
    """Make a passage of its title, if it has one, and its text."""
    title = (title or "").strip()
    return f"{title}. {text}" if title else text


def rank(results: Mapping[str, float]) -> list[str]:
    """Order one query's documents as trec_eval does: by score, compared in single precision, then by id, descending.

    Args:
        results (`dict[str, float]`): scores by document id.

    Returns:
        `list[str]`: the document ids, best first.

    Example:
        >>> rank({"a": 1.0, "b": 1.0, "c": 2.0})
        ['c', 'b', 'a']
    """
    with np.errstate(over="ignore"):
        scores = np.fromiter(results.values(), dtype=np.float64, count=len(results)).astype(np.float32)
    return [docid for _, docid in sorted(zip(scores.tolist(), results, strict=True), reverse=True)]


def write_run(run: Mapping[str, Mapping[str, float]], path: str | os.PathLike[str], tag: str = "optical_hf") -> None:
    """Write a TREC run file: `qid Q0 docid rank score tag`, ranked as trec_eval ranks. Scores keep every digit.

    Args:
        run (`dict[str, dict[str, float]]`): scores by query id and document id.
        path (`str` or `Path`): the file; `.gz` compresses. It appears only once it is complete.
        tag (`str`, *optional*, defaults to `optical_hf`): the run's name, without spaces.

    Raises:
        ValueError: on a NaN score, an id or tag with spaces in it, or a run without any result.
    """
    check_id(tag, "write_run", "tag")
    if not any(run.values()):
        raise ValueError(f"{path} was not written: the run holds no result.")
    with _replacing(path) as file:
        for qid, results in run.items():
            check_id(qid, "run", "query id")
            for docid, score in results.items():
                check_id(docid, f"run, query {qid!r}", "document id")
                if score != score:
                    raise ValueError(f"run, query {qid!r}, document {docid!r}: the score is NaN.")
            for position, docid in enumerate(rank(results), start=1):
                file.write(f"{qid} Q0 {docid} {position} {float(results[docid])!r} {tag}\n")


def write_qrels(qrels: Mapping[str, Mapping[str, int]], path: str | os.PathLike[str]) -> None:
    """Write a TREC qrels file, `qid Q0 docid relevance`, separated by tabs."""
    with _replacing(path) as file:
        for qid, judged in qrels.items():
            check_id(qid, "qrels", "query id")
            for docid, relevance in judged.items():
                check_id(docid, f"qrels, query {qid!r}", "document id")
                grade = whole_number(relevance, f"qrels, query {qid!r}, document {docid!r}")
                file.write(f"{qid}\tQ0\t{docid}\t{grade}\n")


def write_topics(topics: Mapping[str, str], path: str | os.PathLike[str]) -> None:
    """Write queries as `qid<TAB>text` lines."""
    with _replacing(path) as file:
        for qid, text in topics.items():
            check_id(qid, "topics", "query id")
            _check_text(text, f"topics, query {qid!r}")
            if not visible(text).strip() or "\n" in text or "\r" in text:
                raise ValueError(f"topics, query {qid!r}: the text is empty or has a line break in it.")
            file.write(f"{qid}\t{text}\n")


def write_passages(passages: Mapping[str, str], path: str | os.PathLike[str]) -> None:
    """Write passages as JSON lines of `docid` and `contents`."""
    with _replacing(path) as file:
        for docid, contents in passages.items():
            check_id(docid, "passages", "document id")
            _check_text(contents, f"passages, document {docid!r}")
            file.write(json.dumps({"docid": docid, "contents": contents}, ensure_ascii=False) + "\n")


def check_id(value: Any, where: str, what: str) -> None:
    """Check the id of a query or a document.

    Args:
        value (`str`): the id.
        where (`str`): the file and the line, for the error.
        what (`str`): what it is the id of, for the error.

    Raises:
        ValueError: if a run file could not hold it, or no other file could name it.
    """
    # Columns of a run file are separated by spaces: an id with one in it would be read back as two columns.
    if not isinstance(value, str) or len(value.split()) != 1 or value != value.strip():
        raise ValueError(f"{where}: the {what} {value!r} must be a string that is not empty and has no spaces in it.")
    if value.startswith("\ufeff"):
        raise ValueError(f"{where}: the {what} {value!r} begins with a byte order mark; delete this.")
    _check_text(value, f"{where}: the {what}")


def _check_text(text: str, where: str) -> None:
    if without_surrogates(text)[1]:
        raise ValueError(f"{where} {text!r} has half a character in it (a lone surrogate), which no file can hold.")


def whole_number(value: Any, where: str) -> int:
    """Return a relevance as an `int`.

    Args:
        value (`int` or `float`): the relevance.
        where (`str`): the file and the row, for the error.

    Raises:
        ValueError: if it is no whole number.
    """
    try:
        if int(value) == value:
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{where}: the relevance {value!r} is not an integer.")


@contextmanager
def _replacing(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Open a file to write that takes the place of `path` only if nothing went wrong."""
    with replacing(path) as partial:
        with (gzip.open if partial.suffix == ".gz" else open)(partial, "wb") as binary:
            with io.TextIOWrapper(binary, encoding="utf-8", newline="\n") as file:
                yield file
