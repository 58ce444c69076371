"""Training rows in JSON lines: this package's form, and those of Tevatron, FlagEmbedding and sentence-transformers."""

from __future__ import annotations

import json
import os
import re
import reprlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..files import replacing
from .languages import language_code
from .malformed_lines import MalformedLines
from .text_files import numbered_lines, parse_json, warn_of_surrogates
from .training_row_checks import Passage, Record, text_id
from .trec_files import check_id, join_title

_NUMBERED = re.compile(r"negative(?:_(\d+))?")
FORMS = (
    "'query' (or 'anchor') with 'positive' or 'positives' and perhaps 'negatives' or 'negative', 'negative_1', ...; "
    "'query' with 'pos' and 'neg'; or 'query' with 'positive_passages' and 'negative_passages'"
)


def read_row_lines(path: str, languages: tuple[str, str], malformed: MalformedLines) -> Iterator[Record]:
    """Yield the records of JSON lines, each in whichever of the forms.

    Args:
        path (`str`): the file, plain or compressed.
        languages (`tuple[str, str]`): codes of the queries' and the passages' language, with which lines that name
            theirs have to agree.
        malformed ([`MalformedLines`]): notes the lines that cannot be read.
    """
    replaced: list[str] = []
    for number, line in numbered_lines(path):
        place = f"{path}:{number}"
        try:
            value, surrogates = parse_json(line)
            record = _record(value, languages, place)
        except ValueError as error:
            malformed.add(place, str(error))
            continue
        replaced += [place] * surrogates
        yield record
    warn_of_surrogates(replaced)


def _record(row: Any, languages: tuple[str, str], place: str) -> Record:
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__}, not an object; write {FORMS}")
    for name, language in zip(("query_language", "document_language"), languages, strict=True):
        if row.get(name) is not None and language_code(_text(row, name)) != language:
            raise ValueError(f"'{name}' is {row[name]!r}, but the rows are asked for with {language!r}")
    query = _text(row, "anchor" if "query" not in row and "anchor" in row else "query")
    known: list[Passage] = []
    if "positive_passages" in row:
        positives = _tevatron(row, "positive_passages")
        negatives = _tevatron(row, "negative_passages")
    elif "pos" in row:
        positives, negatives = _unnamed(_texts(row, "pos")), _unnamed(_texts(row, "neg"))
        positives, negatives = _scored(
            positives,
            negatives,
            [*_list(row, "pos_scores"), *_list(row, "neg_scores")],
            "'pos_scores' and 'neg_scores'",
        )
    elif "positive" in row or "positives" in row:
        positives, negatives, known = _own(row)
    else:
        raise ValueError(f"the keys are {reprlib.repr(sorted(row))}; write {FORMS}")
    scored_by = None if row.get("scored_by") is None else _text(row, "scored_by")
    return Record(place, query, positives, negatives, known, scored_by)


def _own(row: Mapping[str, Any]) -> tuple[list[Passage], list[Passage], list[Passage]]:
    """Read this package's form, of which that of sentence-transformers is a part."""
    if "positive" in row and "positives" in row:
        raise ValueError("both 'positive' and 'positives' are there; keep one")
    numbered = [(int(match[1] or 0), name) for name in row if (match := _NUMBERED.fullmatch(name))]
    if numbered and "negatives" in row:
        raise ValueError(f"both 'negatives' and '{min(numbered)[1]}' are there; keep one")
    positives = _unnamed([_text(row, "positive")] if "positive" in row else _texts(row, "positives"))
    negatives = _unnamed([_text(row, name) for _, name in sorted(numbered)] or _texts(row, "negatives"))
    if docids := _list(row, "docids"):
        if len(docids) != len(positives) + len(negatives):
            raise ValueError(
                f"{len(docids)} 'docids' for {len(positives) + len(negatives)} passages; give one each, the positives "
                "first"
            )
        for docid in docids:
            check_id(docid, "'docids'", "document id")
        named = [Passage(docid, each.text) for docid, each in zip(docids, [*positives, *negatives], strict=True)]
        positives, negatives = named[: len(positives)], named[len(positives) :]
    positives, negatives = _scored(positives, negatives, _list(row, "scores"), "'scores'")
    for docid in _list(row, "positive_docids"):
        check_id(docid, "'positive_docids'", "document id")
    return positives, negatives, [Passage(docid, None) for docid in _list(row, "positive_docids")]


def _tevatron(row: Mapping[str, Any], name: str) -> list[Passage]:
    passages = []
    for each in _list(row, name):
        if not isinstance(each, dict) or "text" not in each:
            raise ValueError(f"'{name}' holds {reprlib.repr(each)}, not an object with 'docid', 'title' and 'text'")
        title = None if each.get("title") is None else _text(each, "title")
        text = join_title(title, _text(each, "text"))
        docid = each.get("docid")
        if docid is not None:
            check_id(docid, f"'{name}'", "document id")
        passages.append(Passage(text_id(text) if docid is None else docid, text))
    return passages


def _unnamed(texts: Sequence[str]) -> list[Passage]:
    return [Passage(text_id(text), text) for text in texts]


def _scored(
    positives: list[Passage], negatives: list[Passage], scores: Sequence[Any], names: str
) -> tuple[list[Passage], list[Passage]]:
    if not scores:
        return positives, negatives
    if len(scores) != len(positives) + len(negatives):
        raise ValueError(
            f"{len(scores)} {names} for {len(positives)} positive and {len(negatives)} negative passages; give one "
            "each"
        )
    for score in scores:
        if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) <= sys.float_info.max:
            raise ValueError(f"{reprlib.repr(score)} in {names} is not a finite number")
    every = [each._replace(score=float(score)) for each, score in zip([*positives, *negatives], scores, strict=True)]
    return every[: len(positives)], every[len(positives) :]


def _list(row: Mapping[str, Any], name: str) -> list[Any]:
    value = row.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"'{name}' is {reprlib.repr(value)}, not a list")
    return value


def _texts(row: Mapping[str, Any], name: str) -> list[str]:
    values = _list(row, name)
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f"'{name}' holds {reprlib.repr(value)}, not only texts")
    return values


def _text(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        raise ValueError(f"no '{name}'; the keys are {reprlib.repr(sorted(row))}")
    if not isinstance(row[name], str):
        raise ValueError(f"'{name}' is {reprlib.repr(row[name])}, not a text")
    return row[name]


def write_training_rows(
    rows: Iterable[Mapping[str, Any]], path: str | os.PathLike[str], scored_by: str | None = None
) -> None:
    """Write rows as JSON lines, which [`load_training_rows`] reads as the same rows.

    Args:
        rows (`Iterable[Mapping]`): with the columns of [`TrainingRows`].
        path (`str` or `Path`): the file; it appears only once it is complete.
        scored_by (`str`, *optional*): fingerprint of the model of the scores.
    """
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(row_line(row, scored_by))


def row_line(row: Mapping[str, Any], scored_by: str | None = None) -> str:
    """Return the line of JSON of a row, with its end."""
    line = {name: row[name] for name in ("query", "query_language", "document_language")}
    line |= {"positive": row["passages"][0], "negatives": row["passages"][1:], "docids": row["docids"]}
    line["positive_docids"] = row["positives"]
    if row["scores"] is not None:
        line |= {"scores": row["scores"]} | ({} if scored_by is None else {"scored_by": scored_by})
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
