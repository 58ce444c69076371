"""The parquet tables of MTEB's retrieval sets: judgements, queries, candidates and passages."""

from __future__ import annotations

import reprlib
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .characters import visible
from .trec_files import check_id, join_title, whole_number


def read_judgements(path: Path) -> dict[str, dict[str, int]]:
    """Read relevances by query id and document id.

    Args:
        path (`Path`): the table, with the columns `query-id`, `corpus-id` and `score`.

    Raises:
        ValueError: if the file is damaged or empty, or a row is not such a judgement, or at odds with another.
    """
    qrels: dict[str, dict[str, int]] = {}
    for where, (qid, docid, relevance) in _rows(path, "query-id", "corpus-id", "score"):
        documents = qrels.setdefault(_id(qid, where, "query id"), {})
        docid, grade = _id(docid, where, "document id"), whole_number(relevance, where)
        if documents.setdefault(docid, grade) != grade:
            raise ValueError(f"{where}: document {docid!r} has another relevance for query {qid!r} in an earlier row.")
    return _not_empty(qrels, path)


def read_queries(path: Path, judged: Container[str]) -> dict[str, str]:
    """Read the queries that are judged, by id. MTEB runs no others, though those of all splits may be there.

    Args:
        path (`Path`): the table, with the columns `id` (or `_id`) and `text`.
        judged (`Container[str]`): the ids of the judged queries.

    Raises:
        ValueError: if the file is damaged or holds none of them, or a query has no text, or two.
    """
    topics: dict[str, str] = {}
    for where, (qid, text) in _rows(path, "id", "text"):
        qid = _id(qid, where, "query id")
        if qid not in judged:
            continue
        if not visible(_text(text, where, "text")).strip():
            raise ValueError(f"{where}: query {qid!r} has no text.")
        if topics.setdefault(qid, text) != text:
            raise ValueError(f"{where}: query {qid!r} has another text in an earlier row.")
    return _not_empty(topics, path)


def read_candidates(path: Path, topics: Container[str]) -> dict[str, list[str]]:
    """Read the document ids to rerank, each once, by query id.

    Args:
        path (`Path`): the table, with the columns `query-id` and `corpus-ids`.
        topics (`Container[str]`): the ids of the queries.

    Raises:
        ValueError: if the file is damaged or holds none of the queries, or a query has two lists of candidates.
    """
    candidates: dict[str, list[str]] = {}
    for where, (qid, docids) in _rows(path, "query-id", "corpus-ids"):
        qid = _id(qid, where, "query id")
        if qid not in topics:
            continue
        if not isinstance(docids, list):
            raise ValueError(f"{where}: `corpus-ids` must be a list, not {reprlib.repr(docids)}.")
        documents = list(dict.fromkeys(_id(docid, where, "document id") for docid in docids))
        if candidates.setdefault(qid, documents) != documents:
            raise ValueError(f"{where}: query {qid!r} has other candidates in an earlier row.")
    return _not_empty(candidates, path)


def iter_passage_table(path: Path) -> Iterator[tuple[str, str]]:
    """Iterate lazily over document ids and passages, `"title. text"`.

    Args:
        path (`Path`): the table, with the columns `id` (or `_id`), `text` and perhaps `title`.

    Raises:
        ValueError: if the file is damaged or empty, a text is missing, or a document id is there twice.
    """
    seen: set[str] = set()
    for where, (docid, text, title) in _rows(path, "id", "text", "title"):
        docid = _id(docid, where, "document id")
        if docid in seen:
            raise ValueError(f"{where}: document id {docid!r} is there twice.")
        seen.add(docid)
        yield docid, join_title(None if title is None else _text(title, where, "title"), _text(text, where, "text"))
    if not seen:
        raise ValueError(f"{path} is empty: it holds no passage.")


def _not_empty(content: dict[str, Any], path: Path) -> dict[str, Any]:
    if not content:
        raise ValueError(f"{path}: no row of it is of use.")
    return content


def _id(value: Any, where: str, what: str) -> str:
    # MTEB's ids may be numbers.
    name = str(value) if isinstance(value, int) else value
    check_id(name, where, what)
    return str(name)


def _text(value: Any, where: str, column: str) -> str:
    if not isinstance(value, str):
        what = "null" if value is None else reprlib.repr(value)
        raise ValueError(f"{where}: `{column}` must be a string, not {what}.")
    return value


def _rows(path: Path, *columns: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Stream columns of a parquet file, and where each row is. `id` may be called `_id`; `title` may be missing."""
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            here = {column: f"_{column}" if column == "id" and "_id" in names else column for column in columns}
            if missing := [name for column, name in here.items() if name not in names and column != "title"]:
                raise ValueError(f"{path}: no column {' nor '.join(map(repr, missing))} among {names}.")
            for batch in file.iter_batches(columns=[name for name in here.values() if name in names]):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", tuple(row.get(name) for name in here.values())
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: no parquet file, or one that is cut off or damaged after row {number} ({error})."
        ) from error
