"""MIRACL's official retrieval scores, nDCG@10 and Recall@100, exactly as `trec_eval -c -M 100` computes them.

This file is also pushed to a Space as it is, so it imports nothing of the package it comes with.
"""

from __future__ import annotations

import bz2
import gzip
import logging
import lzma
import math
import os
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

import datasets
import evaluate
import pytrec_eval

logger = logging.getLogger(__name__)

Run = Mapping[str, Mapping[str, float]]
Qrels = Mapping[str, Mapping[str, int]]
Number = TypeVar("Number", int, float)

MEASURES = ("ndcg@10", "recall@100")
DEPTH = 100  # trec_eval -M 100
# trec_eval takes memory and time for every grade up to a query's highest, used or not. TREC's grades end at 4, others'
# at 100; what is far above is no grade, but a time or an id in the wrong column.
MAX_RELEVANCE = 1000
_LONGEST_LINE = 1 << 26
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_TREC_NAMES = {"ndcg": "ndcg_cut", "recall": "recall"}

_DESCRIPTION = """
nDCG@10 and Recall@100 as MIRACL reports them (`trec_eval -c -M 100 -m ndcg_cut.10`, `trec_eval -c -m recall.100`),
computed by trec_eval itself through pytrec_eval. The average is over all queries of the judgements: a query without
results scores 0. Results are sorted by score (in single precision), ties by document id, descending.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: the run, as `{query_id: {document_id: score}}`, as the path of a TREC run file, or as a list of
        `{"query_id": str, "docids": list of str, "scores": list of float}`, one a query.
    references: the judgements (qrels), as `{query_id: {document_id: relevance}}`, as the path of a TREC qrels file, or
        as a list of `{"query_id": str, "docids": list of str, "relevances": list of int}`, one a query, in the order
        of the predictions. A relevance is a whole number up to 1000, the gain in nDCG; one below 0, as TREC gives to
        spam, counts as 0. A query with no judgement at all is not scored, as it could not stand in a qrels file.
    measures (list of str, defaults to ndcg@10 and recall@100): `ndcg@k` or `recall@k`, k from 1 to 100.
    per_query (bool, defaults to False): also return `per_query`, `{query_id: {measure: score}}`.
Returns:
    dict: each measure's mean over the judged queries, from 0 to 1.
Examples:
    >>> metric = evaluate.load("miracl_ndcg")
    >>> run = {"q1": {"d1": 2.0, "d2": 1.0}, "q2": {"d1": 0.5}}
    >>> metric.compute(predictions=run, references={"q1": {"d1": 1}, "q2": {"d2": 1}})
    {'ndcg@10': 0.5, 'recall@100': 0.5}
"""

_CITATION = """
@article{zhang2023miracl,
  title={{MIRACL}: A Multilingual Retrieval Dataset Covering 18 Diverse Languages},
  author={Zhang, Xinyu and Thakur, Nandan and Ogundepo, Odunayo and Kamalloo, Ehsan and Alfonso-Hermelo, David and
          Li, Xiaoguang and Liu, Qun and Rezagholizadeh, Mehdi and Lin, Jimmy},
  journal={Transactions of the Association for Computational Linguistics},
  volume={11},
  pages={1114--1131},
  year={2023}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MiraclNdcg(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """MIRACL's nDCG@10 and Recall@100."""

    def _info(self) -> evaluate.MetricInfo:
        documents = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": {
                        "query_id": datasets.Value("string"),
                        "docids": documents,
                        "scores": datasets.Sequence(datasets.Value("float64")),
                    },
                    "references": {
                        "query_id": datasets.Value("string"),
                        "docids": documents,
                        "relevances": datasets.Sequence(datasets.Value("int32")),
                    },
                }
            ),
            reference_urls=["https://github.com/project-miracl/miracl", "https://github.com/usnistgov/trec_eval"],
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add queries, their results and their judgements. A process of several adds its own queries only.

        Raises:
            ValueError: if results and judgements do not fit together, or hold NaN, a repeated id or a relevance that
                is no whole number or is above 1000.
        """
        run, qrels = _tables(predictions, references)
        run, qrels = _convert(run, "run", _score), _convert(qrels, "qrels", _gain)
        # One row a query, so that the rows of several processes can be joined. Queries nobody judged are left out.
        super().add_batch(
            predictions=[
                {"query_id": qid, "docids": [*run.get(qid, {})], "scores": [*run.get(qid, {}).values()]}
                for qid in qrels
            ],
            references=[
                {"query_id": qid, "docids": [*judged], "relevances": [*judged.values()]}
                for qid, judged in qrels.items()
            ],
            **kwargs,
        )

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one query, its results and its judgements: a row of each, or `{query_id: {document_id: ...}}` of each.

        Raises:
            ValueError: as [`add_batch`].
        """
        # evaluate.combine and evaluate's examples say `predictions` and `references` here too.
        given = kwargs.pop("predictions", prediction), kwargs.pop("references", reference)
        if all(isinstance(each, Mapping) and isinstance(each.get("query_id"), str) for each in given):
            given = [given[0]], [given[1]]
        self.add_batch(predictions=given[0], references=given[1], **kwargs)

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any] | None:
        """Score everything added. Only process 0 gets the result, the others None."""
        _trec_measures(kwargs.get("measures", MEASURES))  # now: a misspelt measure must not cost what was added
        if self.num_process == 1 and self.writer is None and (predictions is not None or references is not None):
            # Nothing is joined with it: to write it to a file and read it back would take longer than all else.
            return self._compute(predictions, references, **kwargs)
        return super().compute(predictions=predictions, references=references, **kwargs)

    def _compute(
        self, predictions: Any, references: Any, measures: Sequence[str] = MEASURES, per_query: bool = False
    ) -> dict[str, Any]:
        return score_run(*_tables(predictions, references), measures, per_query)


def score_run(run: Run, qrels: Qrels, measures: Sequence[str] = MEASURES, per_query: bool = False) -> dict[str, Any]:
    """Score a run as MIRACL does: `trec_eval -c -M 100`.

    Args:
        run (`dict[str, dict[str, float]]`):
            Scores by query id and document id; infinity ranks first. Queries that are not in `qrels` are ignored.
        qrels (`dict[str, dict[str, int]]`):
            Relevances by query id and document id, each the gain in nDCG: up to 1000, and 0 if below. A query whose
            relevances are all 0 scores 0 and counts in the mean, as with `trec_eval -c`; a query with no judgement at
            all does not.
        measures (`Sequence[str]`, *optional*, defaults to `("ndcg@10", "recall@100")`):
            `ndcg@k` or `recall@k`, with k from 1 to 100.
        per_query (`bool`, *optional*, defaults to `False`):
            Whether to add `per_query`, the scores by query id and measure.

    Returns:
        `dict`: each measure's mean over the queries of `qrels`, from 0 to 1.

    Raises:
        ValueError: naming query and document, on a NaN score, a relevance that is no integer or is above 1000, or an
            id that is empty or no text; on an unknown measure, or empty `qrels`.

    Example:
        >>> score_run({"q": {"d1": 2.0, "d2": 1.0}}, {"q": {"d2": 1}}, measures=["ndcg@1", "recall@2"])
        {'ndcg@1': 0.0, 'recall@2': 1.0}
    """
    trec_measures = _trec_measures(measures)
    judged = {qid: documents for qid, documents in _convert(qrels, "qrels", _gain).items() if documents}
    if not judged:
        raise ValueError("The judgements (qrels) are empty: there is no query to average over.")
    _check_table(run, "run")
    results = _convert({qid: run[qid] for qid in judged if qid in run}, "run", _score)
    if missing := sum(not results.get(qid) for qid in judged):
        logger.warning("%d of the %d judged queries have no results; each scores 0.", missing, len(judged))
    # trec_eval is given numbers for query ids: of a query with the id "no_query" it would return what is in memory.
    numbers = {qid: str(number) for number, qid in enumerate(judged)}
    # Cutting to the top 100 would change nothing: no measure looks below its cut-off, which is at most 100.
    found = pytrec_eval.RelevanceEvaluator(
        {numbers[qid]: documents for qid, documents in judged.items()}, set(trec_measures.values())
    ).evaluate({numbers[qid]: documents for qid, documents in results.items() if documents})
    columns = {measure: name.replace(".", "_") for measure, name in trec_measures.items()}
    nothing = dict.fromkeys(columns.values(), 0.0)
    scores: dict[str, dict[str, float]] = {}
    for qid, number in numbers.items():
        values = found.get(number, nothing)
        scores[qid] = {measure: values[column] for measure, column in columns.items()}
        if not all(0 <= value <= 1 for value in scores[qid].values()):
            raise RuntimeError(f"trec_eval scores query {qid!r} {scores[qid]}, which is not from 0 to 1.")
    means: dict[str, Any] = {
        measure: math.fsum(query[measure] for query in scores.values()) / len(scores) for measure in trec_measures
    }
    return means | {"per_query": scores} if per_query else means


def _trec_measures(measures: Sequence[str]) -> dict[str, str]:
    """`{"ndcg@10": "ndcg_cut.10"}`: this metric's names and trec_eval's."""
    names = {}
    for measure in [measures] if isinstance(measures, str) else measures:
        kind, _, cutoff = str(measure).partition("@")
        if kind not in _TREC_NAMES or not (cutoff.isdecimal() and 1 <= int(cutoff) <= DEPTH):
            raise ValueError(f"Unknown measure {measure!r}: use ndcg@k or recall@k, with k from 1 to {DEPTH}.")
        names[measure] = f"{_TREC_NAMES[kind]}.{int(cutoff)}"
    if not names:
        raise ValueError("`measures` is empty: name at least one, such as ndcg@10.")
    return names


def _tables(predictions: Any, references: Any) -> tuple[Any, Any]:
    """The run and the qrels by query id, from files, dicts, or lists of rows."""
    if predictions is None or references is None:
        raise ValueError(
            "miracl_ndcg needs both the predictions (the run) and the references (the qrels): two dicts "
            "{query_id: {document_id: number}}, two paths, or two lists of a dict a query."
        )
    whole = [isinstance(given, (str, os.PathLike, Mapping)) for given in (predictions, references)]
    if any(whole) and not all(whole):
        raise ValueError("Give both predictions and references as a list of queries, or neither.")
    if not any(whole):
        _check_rows(predictions, "predictions", "scores")
        _check_rows(references, "references", "relevances")
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions but {len(references)} references: one of each a query.")
        for number, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
            if (ours := prediction["query_id"]) != (theirs := reference["query_id"]):
                raise ValueError(
                    f"Row {number} pairs the predictions of query {ours!r} with the references of {theirs!r}."
                )
        return _join(predictions, "predictions", "scores"), _join(references, "references", "relevances")
    return (
        read_run(predictions) if isinstance(predictions, (str, os.PathLike)) else predictions,
        read_qrels(references) if isinstance(references, (str, os.PathLike)) else references,
    )


def _check_rows(rows: Any, argument: str, values: str) -> None:
    shape = f'{{"query_id": "q1", "docids": ["d1", "d2"], "{values}": [2, 1]}}'
    if not isinstance(rows, Collection):
        raise ValueError(f"{argument}: give a dict, a path, or a list of rows like {shape}, not {rows!r}.")
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(f"{argument}, row {number}: {row!r} is no row like {shape}.")
        if missing := {"query_id", "docids", values} - row.keys():
            raise ValueError(f"{argument}, row {number}: no {' and no '.join(sorted(missing))}, as in {shape}.")
        _check_ids([row["query_id"]], f"{argument}, row {number}, query")
        for column in ("docids", values):
            if isinstance(row[column], str) or not isinstance(row[column], Collection):
                raise ValueError(f"{argument}, query {row['query_id']!r}: {column} {row[column]!r} are no list.")
        _check_ids(row["docids"], f"{argument}, query {row['query_id']!r}, document")


def _join(rows: Collection[Mapping[str, Any]], argument: str, values: str) -> dict[str, dict[str, Any]]:
    """Join rows of one query each to `{query_id: {document_id: value}}`."""
    table: dict[str, dict[str, Any]] = {}
    for row in rows:
        qid, docids, numbers = row["query_id"], row["docids"], row[values]
        if qid in table:
            raise ValueError(
                f"{argument}: query {qid!r} is there twice. Add each query once; "
                "if several processes add queries, each adds only its own, with their judgements."
            )
        if len(docids) != len(numbers):
            raise ValueError(f"{argument}, query {qid!r}: {len(docids)} docids but {len(numbers)} {values}.")
        table[qid] = dict(zip(docids, numbers, strict=True))
        if len(table[qid]) != len(docids):
            twice = next(docid for position, docid in enumerate(docids) if docid in docids[:position])
            raise ValueError(f"{argument}, query {qid!r}: document {twice!r} is there twice.")
    return table


def _convert(
    table: Mapping[str, Mapping[str, Any]], name: str, number: Callable[[Any], Number]
) -> dict[str, dict[str, Number]]:
    _check_table(table, name)
    converted: dict[str, dict[str, Number]] = {}
    for qid, documents in table.items():
        if not isinstance(documents, Mapping):
            raise ValueError(f"{name}, query {qid!r}: expected documents as a dict, not {type(documents).__name__}.")
        _check_ids(documents, f"{name}, query {qid!r}, document")
        row: dict[str, Any] = dict(documents)
        # Floats of a run and integers of judgements, as most are, are what they would be converted to: checked as a
        # whole, in a tenth of the time.
        values, kinds = row.values(), {*map(type, row.values())}
        if number is _score:
            as_they_are = kinds == {float} and not any(map(math.isnan, values))
        else:
            as_they_are = kinds == {int} and 0 <= min(values) and max(values) <= MAX_RELEVANCE
        if not as_they_are:
            for docid, value in row.items():
                try:
                    row[docid] = number(value)
                except ValueError as error:
                    raise ValueError(f"{name}, query {qid!r}, document {docid!r}: {error}") from None
        converted[qid] = row
    return converted


def _check_table(table: Any, name: str) -> None:
    if not isinstance(table, Mapping):
        raise ValueError(f"{name}: expected queries as a dict, not {type(table).__name__}.")
    _check_ids(table, f"{name}, query")


def _check_ids(ids: Collection[Any], where: str) -> None:
    """Refuse ids that would end the process inside trec_eval, or be cut to another id there."""
    try:
        text = "\n".join(ids)
        if (text.isascii() or text.encode()) and "\0" not in text and "" not in ids:
            return
    except (TypeError, UnicodeEncodeError):
        pass
    for value in ids:
        if not isinstance(value, str):
            raise ValueError(f"{where} {value!r}: ids must be strings.")
        if not value or any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"{where} {value!r}: an id must not be empty, nor have NUL or half a character in it.")


def _score(value: Any) -> float:
    try:
        score = float(_without_underscore(value))
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last from torch, of several values at once
        raise ValueError(f"the score {value!r} is not a number.") from None
    if math.isnan(score):
        raise ValueError("the score is NaN, which has no place in a ranking.")
    return score


def _relevance(value: Any) -> int:
    try:
        relevance = int(_without_underscore(value))
        whole = isinstance(value, str) or bool(relevance == value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        whole = False
    if not whole:
        raise ValueError(f"the relevance {value!r} is not an integer.")
    if relevance > MAX_RELEVANCE:
        raise ValueError(f"the relevance {relevance} is above {MAX_RELEVANCE}, the highest there may be.")
    return relevance


def _gain(value: Any) -> int:
    # trec_eval gives no gain for a grade below 0, but ends the process where none of a query is above -2.
    return max(_relevance(value), 0)


def _without_underscore(value: Any) -> Any:
    # Python reads "1_0" as 10, trec_eval as 1.
    if isinstance(value, str) and "_" in value:
        raise ValueError
    return value


def read_run(path: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    """Read a TREC run file (`qid Q0 docid rank score tag`; the rank is not used, as in trec_eval).

    Args:
        path (`str` or `Path`): the file, plain or compressed by gzip, bzip2 or xz.

    Returns:
        `dict[str, dict[str, float]]`: scores by query id and document id.

    Raises:
        ValueError: on a line of another shape, a score that is NaN or no number, a repeated document, no line at all.
    """
    return _read_trec(path, "qid Q0 docid rank score tag", 4, _score)


def read_qrels(path: str | os.PathLike[str]) -> dict[str, dict[str, int]]:
    """Read a TREC qrels file (`qid Q0 docid relevance`, separated by tabs or spaces).

    Args:
        path (`str` or `Path`): the file, plain or compressed by gzip, bzip2 or xz.

    Returns:
        `dict[str, dict[str, int]]`: relevances by query id and document id.

    Raises:
        ValueError: on a line of another shape, a relevance that is no integer or is above 1000, a repeated document,
            no line at all.
    """
    return _read_trec(path, "qid Q0 docid relevance", 3, _relevance)


def _read_trec(
    path: str | os.PathLike[str], shape: str, column: int, number: Callable[[Any], Number]
) -> dict[str, dict[str, Number]]:
    table: dict[str, dict[str, Number]] = {}
    for line_number, line in numbered_lines(path):
        where = f"{path}, line {line_number}"
        fields = line.split()
        if len(fields) != len(shape.split()):
            raise ValueError(f"{where}: {len(fields)} columns, expected {len(shape.split())} ({shape}).")
        qid, docid = fields[0], fields[2]
        documents: dict[str, Number] = table.setdefault(qid, {})
        if docid in documents:
            raise ValueError(f"{where}: document {docid!r} is there twice for query {qid!r}.")
        try:
            documents[docid] = number(fields[column])
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    if not table:
        raise ValueError(f"{path} is empty: expected lines of `{shape}`.")
    return table


def numbered_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Iterate lazily over the lines of a UTF-8 file that are not blank, with their numbers from 1.

    Args:
        path (`str` or `Path`): the file, plain or compressed by gzip, bzip2 or xz, whatever its name is.

    Raises:
        ValueError: if the file is not UTF-8, or is cut off or damaged.
    """
    number = 0
    with open(path, "rb") as raw:
        opener = next((opener for start, opener in _OPENERS.items() if raw.peek(6).startswith(start)), None)
        with opener(raw, "rb") if opener else nullcontext(raw) as file:
            try:
                # A compressed file of some kilobytes can hold a line that fills the memory.
                for number, line in enumerate(iter(partial(file.readline, _LONGEST_LINE + 1), b""), start=1):
                    if len(line) > _LONGEST_LINE:
                        raise ValueError(f"{path}, line {number}: over {_LONGEST_LINE} bytes: no line of text.")
                    # Files that were joined have a byte order mark in the middle too.
                    text = line.decode("utf-8").removeprefix("\ufeff").rstrip("\r\n")
                    if text.strip():
                        yield number, text
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}, line {number}: not UTF-8 ({error.reason} at byte {error.start}).") from None
            except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
                raise ValueError(f"{path}, after line {number}: cut off or damaged ({error}).") from None
